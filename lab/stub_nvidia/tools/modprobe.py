"""`modprobe`: the stub for NVIDIA's modules, the real one for all others."""

from __future__ import annotations

import os
import sys
from typing import Any

from . import driver, views
from .host import Host

REAL = "/usr/sbin/modprobe.distrib"


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Load or remove (-r) fake modules; hands anything else to the real modprobe."""
    words = sys.argv[1:] if arguments is None else arguments
    host = host or Host()
    names = [word.replace("-", "_") for word in words if not word.startswith("-")]
    ours = (*driver.DRIVER_MODULES, *driver.OTHER_MODULES)
    if not names or any(name not in ours for name in names):
        if os.path.exists(REAL):
            # No shell is wanted here: the words go on as they are.
            os.execv(REAL, ["modprobe", *words])  # noqa: S606
        print("stub modprobe: the real one is not installed", file=sys.stderr)
        return 1
    if "-r" in words or "--remove" in words:
        if "nvidia" in names and views.open_in(host):
            print("modprobe: FATAL: Module nvidia is in use.", file=sys.stderr)
            return 1
        host.update(lambda state: _remove(state, names))
    else:
        for name in names:
            problem = driver.load(host) if name in driver.DRIVER_MODULES else None
            if problem:
                level = "FATAL" if "not found" in problem else "ERROR"
                print(f"modprobe: {level}: {problem}", file=sys.stderr)
                return 1
        host.update(lambda state: state.update(modules=sorted({*state["modules"], *names} - {"nvidia"})))
    views.refresh(host)
    return 0


def _remove(state: dict[str, Any], names: list[str]) -> None:
    state["modules"] = [name for name in state["modules"] if name not in names]
    if "nvidia" in names:
        state.update(loaded_driver=None, persistence=False)
        state.pop("fabric_manager", None)
