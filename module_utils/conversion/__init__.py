"""Conversions on a host: one-shot containers that make a model of another one, with a manifest of both."""
