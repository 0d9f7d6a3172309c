"""Who holds GPUs open: units and containers that step aside for a change and come back after it, and all others."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable

#: Writes the CDI specification; not there where nobody uses CDI.
CDI_REFRESH = "nvidia-cdi-refresh.service"
#: Runs a command for some seconds; gives its exit status and words.
Run = Callable[[list[str], float], "tuple[int, str]"]


class Stays(Exception):
    """A unit or container did not stop; the text is for the operator."""


def active(units: list[str], run: Run) -> list[str]:
    """Those of the units that run."""
    return [unit for unit in units if run(["systemctl", "is-active", "--quiet", unit], 20)[0] == 0]


@contextmanager
def aside(units: list[str], containers: list[str], run: Run) -> Iterator[None]:
    """Stop these, and start them again at the end, whatever happened; they find a fresh CDI specification then.

    Raises Stays.
    """
    try:
        if units:
            _must(["systemctl", "stop", *units], run)
        if containers:
            _must(["docker", "stop", *containers], run)
        yield
    finally:
        # A container that is started must not get what was there before.
        run(["systemctl", "restart", CDI_REFRESH], 120)
        for unit in units:
            run(["systemctl", "start", unit], 120)
        for name in containers:
            run(["docker", "start", name], 120)


def _must(command: list[str], run: Run) -> None:
    status, said = run(command, 120)
    if status:
        raise Stays(f"'{' '.join(command)}' ended with {status}: {said[-800:]}")


def holders(proc: str = "/proc") -> list[str]:
    """Processes that have a device node of NVIDIA's driver open, as "process 7 (Xorg)"."""
    found = []
    for folder in sorted(glob.glob(f"{proc}/[0-9]*"), key=lambda path: int(os.path.basename(path))):
        # Processes end and files are closed while we look.
        with suppress(OSError):
            links = []
            for entry in os.scandir(os.path.join(folder, "fd")):
                with suppress(OSError):
                    links.append(os.readlink(entry.path))
            if any(link.startswith("/dev/nvidia") for link in links):
                found.append(f"process {os.path.basename(folder)} ({Path(folder, 'comm').read_text().strip()})")
    return found
