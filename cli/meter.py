"""How far a long step is: bytes, rate, time left; one living line on a terminal, a line every 15 s on a pipe."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from types import TracebackType

STEP = 1.0
PIPE_STEP = 15.0


class Meter:
    """Counts bytes from any thread and shows them on standard error; nothing of a step shorter than a second."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.start = time.monotonic()
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self.shown = self.start
        self._guard = threading.Lock()

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live and self.shown > self.start:
            sys.stderr.write("\r\033[K")

    def tick(self, count: int) -> None:
        """Note that so many more bytes are done."""
        with self._guard:
            self.done += count
            now = time.monotonic()
            if now - self.shown >= (STEP if self.live else PIPE_STEP):
                self.shown = now
                self._show(now - self.start)

    def _show(self, seconds: float) -> None:
        rate = self.done / seconds
        left = f", {max(0, self.total - self.done) / rate:.0f} s left" if self.total and rate else ""
        text = f"{self.what}: {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s{left}"
        if self.live:
            sys.stderr.write("\r\033[K" + text[: shutil.get_terminal_size().columns - 1])
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
