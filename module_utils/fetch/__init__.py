"""Fetching files whose size and SHA-256 are known: pieces, journal, sources. Standard library only, Python 3.9+."""
