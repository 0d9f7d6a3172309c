"""`nvidia-modprobe`: loads the module and makes the device nodes."""

from __future__ import annotations

from . import driver, views
from .host import Host


def main(_arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Load what is installed; the exit status says nothing of what it was asked for."""
    host = host or Host()
    problem = driver.load(host)
    views.refresh(host)
    return 1 if problem else 0
