"""What Prometheus gets to know of the GPUs without their exporter: written by a timer, read by node exporter.

Runs on the host from plain copies of this folder, by `python3 -m gpu.figures`; standard library only. What the figures
mean stands in the monitoring role's rules for GPUs, which use them.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from typing import Any, Optional

from . import driver, pci
from .facts import cards
from .host import ADMIN_PATH, Host
from .ready import JOINED, fabric_states, mismatched, usable

EXPECTED, VISIBLE = "redoubt_gpu_expected", "redoubt_gpu_visible"
FABRIC, MISMATCH, LOOKED = "redoubt_gpu_fabric_ready", "redoubt_gpu_driver_mismatch", "redoubt_gpu_looked_seconds"
HELP = {
    EXPECTED: "GPUs that the host should have.",
    VISIBLE: "GPUs that the driver shows and can reach.",
    FABRIC: "Whether every GPU has joined the NVLink fabric.",
    MISMATCH: "Whether the libraries of the driver are of another version than its loaded module.",
    LOOKED: "When these figures were taken, in seconds since 1970.",
}
#: The timer runs once a minute.
OLD_SECONDS = 300


def figures(facts: dict[str, Any], expected: int, now: float) -> dict[str, float]:
    """The figures by name; one that does not apply is left out.

    facts: the parts `gpus`, `smi` and `driver` of gpu_facts' document.
    """
    found: dict[str, float] = {EXPECTED: expected, VISIBLE: len(usable(facts)), LOOKED: now}
    states = fabric_states(facts)
    if states:
        found[FABRIC] = int(set(states) == {JOINED})
    if facts["driver"]["loaded"]:
        found[MISMATCH] = int(mismatched(facts))
    return found


def text(found: dict[str, float]) -> str:
    """The figures in the format that Prometheus reads."""
    lines = (f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n{name} {value:.0f}\n" for name, value in found.items())
    return "".join(lines)


def parse(page: str) -> dict[str, float]:
    """Those of the figures that a page of an exporter has."""
    rows = re.findall(rf"^({'|'.join(HELP)}) (\S+)", page, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def faults(found: dict[str, float], expected: int, now: float) -> list[str]:
    """What is not good about the figures that an exporter shows."""
    if LOOKED not in found:
        return ["the node exporter has no redoubt_gpu_* figures"]
    wrong = []
    age = now - found[LOOKED]
    if age > OLD_SECONDS:
        wrong.append(f"the figures are {age:.0f} s old: nobody looks at the GPUs any more")
    if found.get(EXPECTED) != expected:
        wrong.append(f"{found.get(EXPECTED, 0):.0f} GPUs are expected there, the plan says {expected}")
    if found.get(VISIBLE, 0) < expected:
        wrong.append(f"{found.get(VISIBLE, 0):.0f} of {expected} GPUs can be used")
    if found.get(FABRIC) == 0:
        wrong.append("the NVLink fabric is not ready")
    if found.get(MISMATCH) == 1:
        wrong.append("the driver's libraries are of another version than its loaded module")
    return wrong


def write(path: str, content: str) -> None:
    """Put the file there at once, so that no reader sees a half of it."""
    handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def look(host: Host) -> dict[str, Any]:
    """What the figures are made of: bus, driver and nvidia-smi; no service is asked."""
    return {"driver": driver.driver(host), **cards(host, pci.devices(host) or [])}


def main(arguments: Optional[list[str]] = None, host: Optional[Host] = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="gpu.figures")
    parser.add_argument("--expected", type=int, required=True, help="GPUs that the host should have")
    parser.add_argument("--file", required=True, help="*.prom file in node exporter's folder")
    options = parser.parse_args(arguments)
    # Far below the minute between two looks, also where a GPU that hangs holds nvidia-smi.
    host = host or Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}", 30)
    write(options.file, text(figures(look(host), options.expected, time.time())))


if __name__ == "__main__":
    main()
