"""Fetching many files over several connections, hashed while they arrive."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence

from .board import Board, Load, total_pieces
from .errors import Retry, Unusable
from .job import Job, Prover
from .line import Limits, Line, MayBegin
from .pace import Bandwidth
from .sources import Body, Channel, Source

CHUNK = 1 << 20
TICK = 1.0
SLOWEST = 1024  # bytes per second that a connection must bring over its timeout

OnBytes = Callable[[int, str], None]


def fetch(
    jobs: Sequence[Job],
    limits: Limits,
    on_bytes: OnBytes,
    on_done: Callable[[Job], None],
    on_tick: Callable[[], None] = lambda: None,
    may_begin: MayBegin | None = None,
) -> None:
    """Bring every file; `on_done` gets each job, in this thread, when its file is proved or no source is left for it.

    `on_tick` is called in this thread about once a second, whether bytes come or not. `may_begin` (see Line) keeps
    files waiting; it is called from the connections' threads, one at a time.

    A job without `problems` at its end is good, and its bytes are at its `path`: on the disk for a large file, on the
    way there for a small one. Raises what ends the whole work: Refusal (disk full), OSError.
    """
    _Engine(jobs, limits, on_bytes, may_begin).run(on_done, on_tick)


class _Engine:
    def __init__(
        self,
        jobs: Sequence[Job],
        limits: Limits,
        on_bytes: OnBytes,
        may_begin: MayBegin | None,
    ) -> None:
        self._board = Board(limits, self._prove, Line(jobs, limits, may_begin))
        self._bandwidth = Bandwidth(limits.bandwidth)
        self._on_bytes = on_bytes
        self._left = len(jobs)
        self._jobs = jobs
        self._threads: list[threading.Thread] = []

    def run(self, on_done: Callable[[Job], None], on_tick: Callable[[], None]) -> None:
        board = self._board
        for _ in range(min(board.limits.connections, total_pieces(self._jobs))):
            self._start(lambda: _Connection(board, self._bandwidth, self._on_bytes).work())
        try:
            while self._left:
                try:
                    event = board.ended.get(timeout=TICK)
                except queue.Empty:
                    on_tick()
                    continue
                if isinstance(event, BaseException):
                    raise event
                self._left -= 1
                on_done(event)
        finally:
            board.stop()
            for thread in self._threads:
                thread.join()
            for job in self._jobs:
                job.close()

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # whatever it is, the run must end with it, not hang
                self._board.stop()
                self._board.ended.put(error)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _prove(self, job: Job) -> None:
        self._start(lambda: self._follow(job))

    def _follow(self, job: Job) -> None:
        """Take over what a damaged copy has, then follow a large file's pieces until it is proved or given up."""
        board = self._board
        try:
            job.plant(board.changed)
            while not job.done and not board.stopped:
                digest = Prover(job, board.changed, lambda: board.stopped).run()
                if digest is not None:
                    board.judge(job, digest)
        finally:
            board.release(job)


class _Connection:
    """One thread with one way to each source."""

    def __init__(self, board: Board, bandwidth: Bandwidth, on_bytes: OnBytes) -> None:
        self._board, self._bandwidth, self._on_bytes = board, bandwidth, on_bytes
        self._channels: dict[str, Channel] = {}

    def work(self) -> None:
        try:
            while True:
                task = self._board.take()
                if task is None:
                    return
                job, index, source = task
                try:
                    self._bring(job, index, source)
                finally:
                    self._board.release(job)
        finally:
            for channel in self._channels.values():
                channel.close()

    def _bring(self, job: Job, index: int, source: Source) -> None:
        if source.name not in self._channels:
            self._channels[source.name] = source.channel()
        done, crc = job.pieces.begun(index, source.name)
        load: Load | None = Load(index, done, crc)
        start, stop = job.cut.span(index)
        try:
            body = self._channels[source.name].open(job.item, start + done, stop)
            try:
                self._board.note_etag(job, source, body.etag)
                if body.whole and not job.small:
                    stream = self._board.begin_stream(job, Load(index, done, crc), source)
                    load = None
                    if stream:
                        self._stream(job, body, source)
                else:
                    load = Load(index, body.start - start, crc if body.start == start + done else 0)
                    self._piece(job, load, body, source)
            finally:
                body.close()
        except (Retry, Unusable) as error:
            self._board.failed(job, load, source, error)

    def _piece(self, job: Job, load: Load, body: Body, source: Source) -> None:
        """Bring the rest of a piece into the file. Raises Retry, and Unusable when there is more than there may be."""
        if job.small and load.done == 0:
            job.sha = hashlib.sha256()
        if not self._receive(job, load, body, job.cut.span(load.index)[1]):
            return
        if job.small and body.read(1):
            raise Unusable(f"expected {job.item.size} bytes, found more")
        if self._board.arrived(job, load, source) and job.small:
            self._board.judge(job, job.sha.hexdigest())

    def _receive(self, job: Job, load: Load, body: Body, stop: int) -> bool:
        start = job.cut.span(load.index)[0]
        watch = _Watch(self._board.limits.timeout)
        while start + load.done < stop:
            if self._board.stopped or job.done:
                return False
            data = watch.read(body, min(CHUNK, stop - start - load.done))
            if not data:
                raise Retry(f"expected {job.item.size} bytes, found {start + load.done}: the connection was closed")
            job.write(data, start + load.done)
            load.done += len(data)
            if job.small:
                job.sha.update(data)
            else:
                load.crc = zlib.crc32(data, load.crc)
            job.received += len(data)
            self._on_bytes(len(data), job.item.label)
            self._bandwidth.take(len(data))
            if watch.too_slow:
                raise Retry(f"slower than {SLOWEST} bytes a second")
        return True

    def _stream(self, job: Job, body: Body, source: Source) -> None:
        """Take a whole file as it comes, because the server knows no ranges; keep the pieces that are missing."""
        try:
            watch = _Watch(self._board.limits.timeout)
            for index in range(job.cut.count):
                if self._board.wanted_in_stream(job, index):
                    load = Load(index)
                    try:
                        if not self._receive(job, load, body, job.cut.span(index)[1]):
                            return
                    except Retry as error:
                        self._board.failed(job, load, source, error)
                        return
                    self._board.arrived(job, load, source)
                    continue
                left = job.cut.length(index)
                while left:
                    data = watch.read(body, min(CHUNK, left))
                    if not data:
                        raise Retry("the connection was closed")
                    left -= len(data)
                    job.received += len(data)
        finally:
            self._board.end_stream(job)


class _Watch:
    """Tells a connection that crawls: less than SLOWEST bytes a second over its timeout, our own waits not counted."""

    def __init__(self, timeout: float) -> None:
        self._timeout, self._seconds, self._bytes = timeout, 0.0, 0
        self.too_slow = False

    def read(self, body: Body, count: int) -> bytes:
        """Read, and count the time that it took."""
        began = time.monotonic()
        data = body.read(count)
        self._seconds += time.monotonic() - began
        self._bytes += len(data)
        if self._seconds >= self._timeout:
            self.too_slow = self._bytes < SLOWEST * self._seconds
            self._seconds, self._bytes = 0.0, 0
        return data
