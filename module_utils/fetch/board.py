"""What all connections share: which piece is next, how sources do, which files are ready. One lock for all of it."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .errors import Dead, Retry
from .job import Job
from .line import Limits, Line
from .pace import pause
from .pieces import BUSY, MISSING
from .sources import Source

PROGRESS_ENOUGH = 64 << 10  # bytes beyond the furthest point so far after which a connection counts as working
LONGEST_WAIT = 300.0
AN_HOUR = 3600.0


@dataclass
class Health:
    """How a source does: failures in a row, when it may be asked again, why it is of no use, that it has no ranges."""

    failures: int = 0
    resume_at: float = 0.0
    dead: str = ""
    rangeless: bool = False


@dataclass
class Load:
    """What a connection has of a piece: bytes and their CRC-32."""

    index: int
    done: int = 0
    crc: int = 0


@dataclass
class Board:
    """The state of one run; `prove` starts the proof of a large file that was opened."""

    limits: Limits
    prove: Callable[[Job], None]
    line: Line
    active: list[Job] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.ended: queue.Queue[Job | BaseException] = queue.Queue()
        self._open = len(self.line.waiting)
        self._health: dict[str, Health] = {}

    def stop(self) -> None:
        """Let every thread end."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    # Which piece next

    def take(self) -> tuple[Job, int, Source] | None:
        """Wait for a piece to fetch; None when there will be none any more. Raises OSError, Refusal (disk full)."""
        with self.changed:
            while not self.stopped and self._open:
                now = time.monotonic()
                soonest = now + AN_HOUR
                self._activate()
                soonest = min(soonest, self.line.look_again)
                for job in sorted(self.active, key=lambda item: item.pieces.busy):
                    source = self._source_of(job)
                    if source is None or job.streaming or not job.pieces.has_missing:
                        continue
                    health = self._of(source)
                    alone = job.whole_only or health.rangeless
                    if health.resume_at > now:
                        soonest = min(soonest, health.resume_at)
                    elif not (alone and job.pieces.busy) and (index := job.pieces.take()) is not None:
                        job.users += 1
                        return job, index, source
                self.changed.wait(soonest - now)
            return None

    def release(self, job: Job) -> None:
        """A thread no longer works on a job; the last one closes it when it is over."""
        with self.changed:
            job.users -= 1
            if job.done and not job.users:
                self._close(job)

    def _activate(self) -> None:
        """Open files: as many large ones as are hashed at once, then more as connections are free for them."""
        while (job := self.line.next(self.active)) is not None:
            self.active.append(job)
            job.open()
            if not job.small:
                job.users += 1
                self.prove(job)

    def _source_of(self, job: Job) -> Source | None:
        """Return the source for a job, going past those that are of no use; ends the job when none is left."""
        while not job.done:
            source = job.source
            if source is None:
                self._end(job)
                return None
            dead = self._of(source).dead
            if source.name not in job.struck and not dead:
                return source
            if source.name not in job.struck:
                job.problems.append(dead)
            job.at += 1
            job.failures = 0
            job.whole_only = False
        return None

    def _of(self, source: Source) -> Health:
        return self._health.setdefault(source.name, Health())

    def _end(self, job: Job) -> None:
        """A job is over, good or not."""
        job.done = True
        self._open -= 1
        self.active.remove(job)
        if not job.users:
            self._close(job)
        self.changed.notify_all()

    def _close(self, job: Job) -> None:
        job.close()
        self.ended.put(job)

    # What came

    def arrived(self, job: Job, load: Load, source: Source) -> bool:
        """Note a whole piece; False when nobody wants it any more. Raises OSError."""
        with self.changed:
            if job.done or self.stopped or job.pieces.state[load.index] != BUSY:
                return False
        # While the piece is ours nobody can find the file wrong and clear the journal.
        job.note_arrival(load.index, load.crc, source.name)
        with self.changed:
            self._of(source).failures = 0
            job.failures = 0
            job.pieces.arrive(load.index, load.crc, source.name)
            self.changed.notify_all()
        job.sync_now_and_then(load.index)
        return True

    def note_etag(self, job: Job, source: Source, etag: str) -> None:
        """Note what the source says of the file's state."""
        if etag:
            with self.changed:
                job.etags.setdefault(source.name, set()).add(etag)

    def begin_stream(self, job: Job, load: Load, source: Source) -> bool:
        """A server sends the whole file for a part of it: one connection takes it all. False: another one does."""
        with self.changed:
            job.pieces.give_back(load.index, load.done, load.crc, source.name)
            job.whole_only = self._of(source).rangeless = True
            if job.streaming:
                return False
            job.streaming = True
            return True

    def end_stream(self, job: Job) -> None:
        """The connection that took it all has ended."""
        with self.changed:
            job.streaming = False
            self.changed.notify_all()

    def wanted_in_stream(self, job: Job, index: int) -> bool:
        """Tell whether a piece that comes by is missing; if so it is the caller's."""
        with self.changed:
            if job.pieces.state[index] != MISSING:
                return False
            job.pieces.state[index] = BUSY
            job.pieces.broken.pop(index, None)
            return True

    # What failed

    def failed(self, job: Job, load: Load | None, source: Source, error: Exception) -> None:
        """Put a piece back, and let its source rest or go to the next one."""
        with self.changed:
            if job.done or self.stopped:
                return
            if load is not None:
                job.pieces.give_back(load.index, load.done, load.crc, source.name)
            text = str(error)
            place = source.place(job.item)
            text = text if place in text else f"{place}: {text}"
            if isinstance(error, Retry):
                self._rest(job, load, source, error, text)
            else:
                if isinstance(error, Dead):
                    self._of(source).dead = text
                self._strike(job, source, text)
            self._source_of(job)
            self.changed.notify_all()

    def _rest(self, job: Job, load: Load | None, source: Source, error: Retry, text: str) -> None:
        health, now = self._of(source), time.monotonic()
        if load is not None and load.done >= job.furthest.get(load.index, 0) + PROGRESS_ENOUGH:
            job.furthest[load.index] = load.done
            health.failures = job.failures = 0
        if now >= health.resume_at:
            # Connections that fail while the source rests already fail for the same reason.
            health.failures += 1
            job.failures += 1
            wait = pause(health.failures, self.limits.first_pause, random.random)
            health.resume_at = now + (wait if error.after is None else min(error.after, LONGEST_WAIT))
        if job.failures >= self.limits.retries:
            self._strike(job, source, f"{text} ({job.failures} times in a row)")
        elif error.after is not None and error.after > LONGEST_WAIT:
            self._strike(job, source, f"{text}; it asks to wait {error.after:.0f} s")
        if health.failures >= 2 * self.limits.retries:
            health.dead = text

    def _strike(self, job: Job, source: Source, text: str) -> None:
        if source.name not in job.struck:
            job.struck.add(source.name)
            job.problems.append(text)

    def judge(self, job: Job, digest: str) -> None:
        """Compare the SHA-256 of a file that is here whole with what it should be. Raises OSError."""
        if digest == job.item.sha256:
            if not job.small:
                os.fsync(job.descriptor)
            with self.changed:
                job.overcome, job.problems = job.problems, []
                self._end(job)
            return
        with self.changed:
            givers = set(job.pieces.giver.values())
            text = f"expected sha256 {job.item.sha256}, found {digest}"
            for source in [item for item in job.sources if item.name in givers]:
                mixed = len(job.etags.get(source.name, ())) > 1 or len(givers) > 1
                if mixed and source.name not in job.second_chances:
                    # Bytes of two states of the file, or of two places: once more, from one.
                    job.second_chances.add(source.name)
                else:
                    self._strike(job, source, f"{source.place(job.item)}: {text}")
            job.etags.clear()
            job.start_again()
            self._source_of(job)
            self.changed.notify_all()


def total_pieces(jobs: Sequence[Job]) -> int:
    """Return how many pieces there are."""
    return sum(job.cut.count for job in jobs)
