# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time on one thing of a host. Standard library only, Python 3.9+.

A run whose control process was killed goes on here for a while: its module does not notice. The next run therefore
waits for it rather than working beside it, or refusing at once what a minute later would be right.

A module cannot print, so the action that starts it (action_plugins/lock_wait.py) lets it wait for a short while only,
says who holds the lock, and starts it again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 900  # seconds that a run waits for another one, unless its caller says otherwise
PAUSE = 0.2  # seconds between two tries
HOLDER_BYTES = 1000


class Busy(Exception):
    """Another run holds the lock and does not let go; the text is for the operator, `holder` says who it is."""

    def __init__(self, text: str, holder: str) -> None:
        super().__init__(text)
        self.holder = holder


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
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
        os.pwrite(descriptor, f"{os.getpid()}\n{since}\n{user}\n{' '.join(what.split())}\n".encode(), 0)
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
                holder = _holder(os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace"))
                raise Busy(
                    f"another run ({holder}) is working on {what} on this host; let it end, then run again",
                    holder,
                ) from None
            time.sleep(PAUSE)
        else:
            return


def _holder(text: str) -> str:
    """Who holds a lock, from its file: process, begin, user and work, a line each; other or no text says little."""
    lines = text.splitlines()
    if len(lines) < 4:
        return f"process {lines[0] if lines else '?'}"
    return f"process {lines[0]} of {lines[2]}, since {lines[1]}: {lines[3]}"
