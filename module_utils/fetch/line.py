"""The files that wait to be opened, and which of them is next. Locked by its owner, the board."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .job import Job
from .pace import FIRST_PAUSE

LOOK_AGAIN = 0.25  # seconds until files that may not begin yet are asked about again
NEVER = float("inf")
MayBegin = Callable[[Job, bool, bool], bool]


@dataclass(frozen=True)
class Limits:
    """Connections, bytes per second in all (0: no cap), tries without success, files hashed at once, seconds."""

    connections: int = 8
    bandwidth: int = 0
    retries: int = 6
    lanes: int = 2
    timeout: float = 60
    first_pause: float = FIRST_PAUSE


class Line:
    """The waiting files.

    `may_begin` tells whether a file may begin now, given whether there is room for one from afar and for one from a
    host nearby; it may set the file's sources. None: all may.
    """

    def __init__(self, jobs: Sequence[Job], limits: Limits, may_begin: MayBegin | None = None) -> None:
        # The largest last, so that they are taken first and the connections end at about the same time.
        self.waiting = sorted(jobs, key=lambda job: job.item.size)
        self.look_again = NEVER
        self._limits, self._may_begin = limits, may_begin

    def next(self, active: Sequence[Job]) -> Job | None:
        """Take the file from the line that is to be opened beside the active ones now, if any is."""
        if not self.waiting:
            self.look_again = NEVER
            return None
        if self._may_begin is None:
            return self.waiting.pop() if self._has_room(active, self.waiting[-1].small) else None
        if time.monotonic() < self.look_again < NEVER:
            return None
        self.look_again = NEVER
        near = [job for job in active if job.from_peers]
        afar = [job for job in active if not job.from_peers]
        room = {small: (self._has_room(afar, small), self._has_room(near, small)) for small in (False, True)}
        for place in range(len(self.waiting) - 1, -1, -1):
            job = self.waiting[place]
            if any(room[job.small]):
                if self._may_begin(job, *room[job.small]):
                    return self.waiting.pop(place)
                self.look_again = time.monotonic() + LOOK_AGAIN
        return None

    def _has_room(self, beside: Sequence[Job], small: bool) -> bool:
        """Tell whether a file may be opened: as many large ones as are hashed at once, more when connections idle."""
        idle = not any(job.pieces.has_missing and not job.streaming for job in beside)
        if small:
            return idle
        large = sum(not job.small for job in beside)
        return large < self._limits.lanes or (idle and large < self._limits.lanes + self._limits.connections)
