# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time on one thing of a host. Standard library only, Python 3.9+.

A run whose control process was killed goes on here for a while: its module does not notice. The next run therefore
waits for it rather than working beside it, or refusing at once what a minute later would be right.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE = 0.2  # seconds between two tries


class Busy(Exception):
    """Another run holds the lock and does not let go; the text is for the operator."""


@contextmanager
def only_run(path: Path, what: str, patience: float) -> Iterator[None]:
    """Hold the lock file `path` while working on `what`; waits up to `patience` seconds for another run.

    The kernel lets go of it when this process dies, however it dies. Raises Busy, and OSError when the file cannot be
    made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, what, patience)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, what: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "?"
                raise Busy(
                    f"another run (process {holder}) is working on {what} on this host, waited {patience:.0f} s for it;"
                    " let it end, then run again"
                ) from None
            time.sleep(PAUSE)
        else:
            return
