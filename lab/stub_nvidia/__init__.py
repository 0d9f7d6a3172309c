"""Stubs that play NVIDIA's package repositories and tools on lab hosts. Nothing here is NVIDIA's."""
