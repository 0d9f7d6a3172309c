"""What a host's NVIDIA hardware and driver are, read and never changed; shared by gpu_facts and host_facts."""
