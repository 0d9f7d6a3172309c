"""`nvidia-persistenced`: keeps the fake GPUs initialised."""

from __future__ import annotations

import os
import signal
import sys

from . import driver, views
from .host import Host


def main(_arguments: list[str] | None = None, host: Host | None = None, *, stay: bool = True) -> int:
    """Turn persistence mode on and stay in the background; returns the exit status."""
    host = host or Host()
    driver.load(host)
    if host.driver() is None:
        print(
            "Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist, "
            "and that user 0 has read and write permissions for those files.",
            file=sys.stderr,
        )
        return 1
    host.update(lambda state: state.update(persistence=True))
    views.refresh(host)
    if stay and os.fork() == 0:
        os.setsid()
        views.hold(host)
        signal.pause()
    return 0
