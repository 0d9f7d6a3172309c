"""The gateway's audit log: its lines are sealed by a chain of hashes, and proved by reading all of it again."""
