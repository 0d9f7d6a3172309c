"""Throwaway hosts on one machine: a container engine, images, a small real model, and systemd hosts over SSH.

Everything made here carries the label ``redoubt.lab=1`` and lives below ``lab.paths.CACHE``; ``lab down`` removes it.
"""
