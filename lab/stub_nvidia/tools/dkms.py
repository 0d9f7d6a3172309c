"""`dkms status`, and nothing else."""

from __future__ import annotations

import os
import sys

from .host import Host


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Print the one module that may be installed."""
    words = sys.argv[1:] if arguments is None else arguments
    host = host or Host()
    if words[:1] != ["status"]:
        print("stub dkms: only `dkms status` is played here", file=sys.stderr)
        return 1
    version = host.component("module")
    if version:
        print(f"nvidia/{version}, {os.uname().release}, x86_64: installed")
    return 0
