"""How fast, and how long to wait."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

LONGEST_PAUSE = 30.0
FIRST_PAUSE = 0.5


def pause(failures: int, first: float = FIRST_PAUSE, dice: Callable[[], float] = random.random) -> float:
    """Return seconds to wait after so many failures in a row: doubling, at most 30 s, the upper half by chance."""
    return min(LONGEST_PAUSE, first * 2.0 ** (failures - 1)) * (0.5 + dice() / 2)


class Bandwidth:
    """A cap on bytes per second over all connections; 0 means none."""

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait until this many bytes more may have come."""
        if not self.rate:
            return
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self.rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)
