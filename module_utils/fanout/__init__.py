"""Hosts that hand proved files to each other while a model comes, so that its origin sends each byte about once."""
