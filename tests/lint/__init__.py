"""Checks of the repository itself, run with the other linters."""
