"""`dcgmi`: discovery, a health check and the quick diagnosis, of the fake GPUs."""

from __future__ import annotations

import sys

from .host import Host


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    host = host or Host()
    if words[:1] in (["--version"], ["-v"]):
        print(f"dcgmi  version: {host.component('dcgm')}\nstub of the Redoubt lab")
        return 0
    loaded = host.driver()
    if loaded is None or loaded != host.component("nvml"):
        print("Error: unable to establish a connection to the specified host: localhost", file=sys.stderr)
        return 255
    gpus = host.gpus()
    bad = [gpu for gpu in gpus if gpu.lost or gpu.ecc_uncorrected or gpu.row_remap_failure]
    if words[:2] == ["discovery", "-l"]:
        print(f"{len(gpus)} GPUs found. (stub)")
        for gpu in gpus:
            print(f"| {gpu.index} | Name: {gpu.product} | PCI Bus ID: {gpu.bus_id} | Device UUID: {gpu.uuid} |")
        print(f"{len(host.description().get('nvswitches', ()))} NvSwitches found.")
        return 0
    if words[:1] == ["health"] or words[:1] == ["diag"]:
        for gpu in bad:
            print(f"| GPU {gpu.index} | Fail |")
        print("Overall Health: " + ("Failure" if bad else "Healthy") + " (stub)")
        return 1 if bad and words[0] == "diag" else 0
    print(f"stub dcgmi: {' '.join(words)} is not played here", file=sys.stderr)
    return 1
