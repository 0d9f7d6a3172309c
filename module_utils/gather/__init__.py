"""Bringing what a lock lists into a depot, from where the connected side has it. Standard library only, Python 3.9+."""
