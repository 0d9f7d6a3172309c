"""Ending what was started here, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, children before grandchildren; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            after_name = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(entry.parent.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def kill_tree(pid: int, number: signal.Signals) -> None:
    """Sends a signal to a process and to all below it, the lowest first."""
    for target in [*reversed(descendants(pid)), pid]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)


class Stopper:
    """While entered, Ctrl-C (and SIGTERM, SIGHUP) stop one child: politely, after `grace` seconds by force.

    A second Ctrl-C does not wait. `poll` is to be called a few times a second. Outside of the main thread
    signals cannot be caught; then only `poll` answers, always False.
    """

    def __init__(self, grace: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.caught: int | None = None
        self.pid: int | None = None
        self._grace, self._clock = grace, clock
        self._since = 0.0
        self._times = 0
        self._told = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Stopper:
        with suppress(ValueError):  # not the main thread
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def poll(self) -> bool:
        """True when the child has to be killed now; passes the first signal on to it before."""
        if self.caught is None:
            return False
        if self.pid is None:
            return True  # it has not begun to do anything
        if self._times > 1 or self._clock() - self._since > self._grace:
            kill_tree(self.pid, signal.SIGKILL)
            return True
        if not self._told:
            self._told = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)  # ansible-playbook hands it to its workers
        return False

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught, self._since = number, self._clock()
        self._times += 1
