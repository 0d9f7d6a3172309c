"""The stub tools, as they run on a lab host. Standard library only; $STUB_NVIDIA_ROOT is the root in tests."""
