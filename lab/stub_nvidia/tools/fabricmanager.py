"""`nv-fabricmanager`: completes the fabric of a host with NVSwitches, if it is of the driver's version."""

from __future__ import annotations

import os
import signal
import sys

from . import views
from .host import Host

NOTHING = (
    "request to query NVSwitch device information from NVSwitch driver failed with error:"
    "WARNING Nothing to do [NV_WARN_NOTHING_TO_DO]"
)
#: Modules without which an NVLink 5 host's fabric stays "In Progress".
NVLINK5_MODULES = {"mlx5_ib", "ib_umad"}


def main(arguments: list[str] | None = None, host: Host | None = None, *, stay: bool = True) -> int:
    """Do the work, then stay in the background like a daemon unless told otherwise; returns the exit status."""
    host = host or Host()
    own, loaded = host.component("fabricmanager"), host.driver()
    if "--version" in (sys.argv[1:] if arguments is None else arguments):
        print(f"Fabric Manager version is : {own} (stub)")
        return 0
    description = host.description()
    if loaded is None:
        print("stub nv-fabricmanager: the NVIDIA driver is not loaded", file=sys.stderr)
        return 1
    if own != loaded:
        print(
            f"fabric manager NVIDIA GPU driver interface version {own} don't match with driver version {loaded}. "
            "Please update with matching NVIDIA driver package.",
            file=sys.stderr,
        )
        return 1
    if description.get("fabric") is None:
        print(NOTHING, file=sys.stderr)
        return 1
    nvlink5 = bool(description.get("infiniband"))
    ready = not nvlink5 or (host.component("nvlsm") and set(host.state()["modules"]) >= NVLINK5_MODULES)
    host.update(lambda state: state.update(fabric_manager=own if ready else None))
    views.refresh(host)
    if stay and os.fork() == 0:
        os.setsid()
        views.hold(host)
        signal.pause()
    return 0
