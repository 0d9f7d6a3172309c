"""How far a long step is, as a small JSON file that a watcher may read at any time."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

INTERVAL = 0.5
RATE_SECONDS = 10.0  # the rate is that of so many last seconds
BEAT = 1.0
PROVING, FETCHING, PUBLISHING = PHASES = ("proving", "fetching", "publishing")


class Progress:
    """Counts bytes from any thread and writes them down at most twice a second.

    The file holds ``{schema, what, phase, item, done_bytes, total_bytes, bytes_per_second, seconds_left, seconds,
    finished, pid, updated}``; the rate is that of the last seconds, and seconds_left is null while nobody can tell.
    phase is one of PHASES, or empty for work that has none.
    ``metrics`` is the same for Prometheus, written when its folder is there (node exporter reads it).
    A file that cannot be written is no reason to stop the work: it is then left out.
    """

    def __init__(
        self,
        path: Path | None,
        what: str,
        total: int,
        clock: Callable[[], float] = time.monotonic,
        metrics: Path | None = None,
        phase: str = "",
    ) -> None:
        self.path = path
        self.metrics = metrics
        self.what = what
        self.total = total
        self.done = 0
        self._clock = clock
        self._item = ""
        self._phase = phase
        self._start = clock()
        self._written = float("-inf")
        self._marks = deque([(self._start, 0)])
        self._lock = threading.Lock()

    def add(self, count: int, item: str) -> None:
        """Note that ``count`` more bytes of ``item`` are done."""
        with self._lock:
            self.done += count
            self._item = item
            now = self._clock()
            if now - self._written >= INTERVAL:
                self._written = now
                self._write(finished=False)

    def tick(self) -> None:
        """Let time pass: also while nothing comes, a watcher sees that the work goes on, and how slowly."""
        with self._lock:
            now = self._clock()
            if now - self._written >= INTERVAL:
                self._written = now
                self._write(finished=False)

    def enter(self, phase: str) -> None:
        """Note what the work is about from now on; what is new is written at once."""
        with self._lock:
            if phase != self._phase or self._written < self._start:
                self._phase = phase
                self._written = self._clock()
                self._write(finished=False)

    @contextlib.contextmanager
    def beating(self) -> Iterator[Progress]:
        """Let time pass every second until the work ends, however it ends: also where no byte is counted.

        A watcher takes a file that nobody writes any more for what a killed run has left.
        """
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                if self._written >= self._start:  # a run with nothing to do writes nothing
                    self.tick()

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield self
        finally:
            ended.set()
            heart.join()
            self.finish()

    def finish(self) -> None:
        """Write the last state, if any state was ever written."""
        with self._lock:
            if self._written >= self._start:
                self._write(finished=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def _write(self, finished: bool) -> None:
        if self.path is None:
            return
        now = self._clock()
        while len(self._marks) > 1 and now - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        rate = int((self.done - before) / max(now - since, 1e-6))
        self._marks.append((now, self.done))
        document = {
            "schema": 1,
            "what": self.what,
            "phase": self._phase,
            "item": self._item,
            "done_bytes": self.done,
            "total_bytes": self.total,
            "bytes_per_second": rate,
            "seconds_left": int(max(0, self.total - self.done) / rate) if rate and self.total else None,
            "seconds": round(self.seconds, 1),
            "finished": finished,
            "pid": os.getpid(),
            "updated": int(time.time()),
        }
        with contextlib.suppress(OSError):
            write_json(self.path, document, mode=0o644)
            if self.metrics is not None and self.metrics.parent.is_dir():
                write_text(self.metrics, metrics_text(document), 0o644)


def metrics_text(document: Mapping[str, Any]) -> str:
    """Return a progress document in Prometheus' text format."""
    figures = {
        "running": ("1 while a run brings bytes", 0 if document["finished"] else 1),
        "done_bytes": ("Bytes that the last run has brought or read again", document["done_bytes"]),
        "total_bytes": ("Bytes that the last run had to bring or read again", document["total_bytes"]),
        "bytes_per_second": ("Bytes per second over the last seconds", document["bytes_per_second"]),
        "updated_timestamp_seconds": ("When these figures were written", document["updated"]),
    }
    lines = []
    for name, (text, value) in figures.items():
        metric = f"redoubt_{document['what']}_{name}"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    if document["phase"]:
        metric = f"redoubt_{document['what']}_phase"
        lines += [f"# HELP {metric} 1 for what a run does now, 0 for all when none works", f"# TYPE {metric} gauge"]
        now = "" if document["finished"] else document["phase"]
        lines += [f'{metric}{{phase="{phase}"}} {int(phase == now)}' for phase in PHASES]
    return "\n".join(lines) + "\n"


def write_json(path: Path, document: object, mode: int = 0o600, compact: bool = False, sort_keys: bool = True) -> None:
    """Write a JSON file so that a reader sees the old or the new one, never a part; `compact` sorts nothing.

    Raises OSError.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    text = (
        json.dumps(document, separators=(",", ":")) if compact else json.dumps(document, indent=1, sort_keys=sort_keys)
    )
    write_text(path, text + "\n", mode)


def write_text(path: Path, text: str, mode: int) -> None:
    """Write a file so that a reader sees the old or the new one, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)
