"""How the lab tells what it is doing; the caller chooses how that looks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO


class Report(Protocol):
    """What the lab says while it works. Several threads may call it at once."""

    def phase(self, text: str) -> AbstractContextManager[None]:
        """Enclose a step that takes more than a moment."""

    def step(self, text: str) -> None:
        """Say one thing that was done or found."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the phase of the calling thread is; ``total`` is 0 where it is not known."""


class PlainReport:
    """A Report that writes one line for each thing said, for pipes and logs."""

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Write a line at the start and one with the seconds at the end, also when the phase fails."""
        outer = getattr(self._local, "phase", None)
        self._local.phase = text
        began = time.monotonic()
        self._say(f"{text} ...")
        outcome = "failed after"
        try:
            yield
            outcome = "done in"
        finally:
            self._local.phase = outer
            self._say(f"{text}: {outcome} {time.monotonic() - began:.1f} s")

    def step(self, text: str) -> None:
        """Write the line."""
        self._say(text)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Write a line at most every few seconds."""
        now = time.monotonic()
        if now - getattr(self._local, "last", 0.0) < self._interval:
            return
        self._local.last = now
        phase = getattr(self._local, "phase", None) or "progress"
        amount = f"{done * 100 // total} % ({done}/{total} {unit})" if total else f"{done} {unit}"
        self._say(f"{phase}: {amount}")

    def _say(self, text: str) -> None:
        with self._lock:
            print(f"[{time.monotonic() - self._start:7.1f}] {text}", file=self._stream, flush=True)


class QuietReport:
    """A Report that says nothing."""

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Say nothing."""
        yield

    def step(self, text: str) -> None:
        """Say nothing."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say nothing."""
