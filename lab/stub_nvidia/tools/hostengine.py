"""`nv-hostengine`: a process that stays and holds a GPU; it listens nowhere."""

from __future__ import annotations

import signal
import sys

from . import views
from .host import Host


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Stay until told to end."""
    words = sys.argv[1:] if arguments is None else arguments
    host = host or Host()
    if "--version" in words:
        print(f"Version : {host.component('dcgm')}\nstub of the Redoubt lab")
        return 0
    views.hold(host)
    signal.pause()
    return 0
