"""What the modules weights and container_images share: lists of exact bytes, where they come from, how they arrive."""
