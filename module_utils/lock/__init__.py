"""The lock: the exact bytes that may be on a host, as one document. Standard library only, Python 3.9+."""
