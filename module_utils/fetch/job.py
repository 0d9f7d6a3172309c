"""One file on its way: its bytes on the disk, its pieces, its journal, and who gave what."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal

from .journal import Journal, read_journal
from .kernel import allocate, start_writing
from .pieces import BUSY, CLAIMED, HERE, MISSING, PROVED, Cut, Pieces, piece_size_for
from .sources import Item, Source

BLOCK = 1 << 20
SYNC_BYTES = 256 << 20


@dataclass
class Seed:
    """A damaged copy of the file, and the CRC-32 of the pieces that it should have."""

    path: Path
    crcs: dict[int, int]


@dataclass
class Job:
    """A file to fetch, from the first source that gives it. `path` is where its bytes are put together."""

    item: Item
    path: Path
    sources: Sequence[Source]
    piece: int = 0
    seed: Seed | None = None
    # How it goes; guarded by the engine's lock.
    at: int = 0
    failures: int = 0
    problems: list[str] = field(default_factory=list)
    overcome: list[str] = field(default_factory=list)  # what was wrong before a source gave it right
    from_peers: bool = False  # another host has it, so it does not stand in line with what comes from afar
    struck: set[str] = field(default_factory=set)
    whole_only: bool = False
    streaming: bool = False
    etags: dict[str, set[str]] = field(default_factory=dict)
    second_chances: set[str] = field(default_factory=set)
    furthest: dict[int, int] = field(default_factory=dict)
    users: int = 0
    received: int = 0
    reused: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        self.cut = Cut(self.item.size, self.piece or piece_size_for(self.item.size))
        self.pieces = Pieces(self.cut)
        self.descriptor = -1
        self.journal: Journal | None = None
        self.sha = hashlib.sha256()
        self._unsynced = 0
        self._sync = threading.Lock()

    @property
    def small(self) -> bool:
        """Whether the file is one piece: then it needs no journal, and is hashed while it arrives."""
        return self.cut.count == 1

    @property
    def journal_path(self) -> Path:
        """Return where the journal is."""
        return self.path.with_name(f"{self.path.name}.journal")

    @property
    def source(self) -> Source | None:
        """Return the source that is asked now; None when all have failed."""
        return self.sources[self.at] if self.at < len(self.sources) else None

    def open(self) -> None:
        """Make or take up the file, reserve its bytes, read the journal. Raises OSError, Refusal (disk full)."""
        there = self.path.exists() and self.path.stat().st_size == self.cut.size
        known = read_journal(self.journal_path, self.cut) if there and not self.small else {}
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if known else os.O_TRUNC)
        self.descriptor = os.open(self.path, flags, 0o600)
        if self.small:
            return  # written at once, from its start: reserving first would only make its pages twice
        with self.telling_no_space():
            allocate(self.descriptor, self.cut.size)
        # Written anew: a line that a power failure tore must not spoil those that are added behind it.
        self.journal_path.unlink(missing_ok=True)
        self.journal = Journal(self.journal_path, self.cut)
        for index, (crc, giver) in known.items():
            self.pieces.claim(index, crc, giver)
            self.journal.add(index, crc, giver)
        for index in self.seed.crcs if self.seed is not None else ():
            if self.pieces.state[index] == MISSING:
                self.pieces.state[index] = BUSY  # until `plant` has looked

    def plant(self, changed: threading.Condition) -> None:
        """Take over what is right in a damaged copy; connections may work beside it. Raises OSError, Refusal."""
        if self.seed is None or self.journal is None:
            return
        giver = str(self.seed.path)
        planned = [index for index in sorted(self.seed.crcs) if self.pieces.state[index] == BUSY]
        with open(self.seed.path, "rb") as stream:
            for index in planned:
                start, stop = self.cut.span(index)
                try:
                    data = os.pread(stream.fileno(), stop - start, start)
                except OSError:
                    data = b""  # a part that the disk cannot read is damaged
                crc = self.seed.crcs[index]
                good = len(data) == stop - start and zlib.crc32(data) == crc
                if good:
                    self.write(data, start)
                    self.journal.add(index, crc, giver)
                with changed:
                    if good:
                        self.pieces.claim(index, crc, giver)
                    else:
                        self.pieces.give_back(index)
                    changed.notify_all()

    def write(self, data: bytes, offset: int) -> None:
        """Put bytes at their place. Raises OSError, Refusal (disk full)."""
        view = memoryview(data)
        with self.telling_no_space():
            while view:
                count = os.pwrite(self.descriptor, view, offset)
                view, offset = view[count:], offset + count

    def note_arrival(self, index: int, crc: int, giver: str) -> None:
        """Write into the journal that a piece is in the file, before anybody else may know of it. Raises OSError."""
        start, stop = self.cut.span(index)
        start_writing(self.descriptor, start, stop - start)
        if self.journal is not None:
            self.journal.add(index, crc, giver)

    def sync_now_and_then(self, index: int) -> None:
        """Bring file and journal to the disk, once for some hundred MiB. Raises OSError."""
        if self.journal is None:
            return
        with self._sync:
            self._unsynced += self.cut.length(index)
            due = self._unsynced >= SYNC_BYTES
            if due:
                self._unsynced = 0
        if due:
            os.fdatasync(self.descriptor)
            self.journal.sync()

    def start_again(self) -> None:
        """Forget all that arrived: it was wrong. Raises OSError."""
        self.pieces.drop_all()
        if self.journal is not None:
            self.journal.clear()

    def close(self) -> None:
        """Let go of the file; it stays for the next run."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def telling_no_space(self) -> _NoSpace:
        """Return a context that turns a full disk into a refusal with numbers."""
        return _NoSpace(self)


class _NoSpace:
    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            job = self._job
            disk = os.statvfs(job.path.parent)
            raise Refusal(
                f"{job.item.label}: no space left below {job.path.parent}: the file has {job.item.size} bytes, "
                f"{disk.f_bavail * disk.f_frsize} are free; what arrived is kept for the next run"
            ) from error


class Prover:
    """The SHA-256 of a file in order, right behind the pieces as they arrive."""

    def __init__(self, job: Job, changed: threading.Condition, stopped: Callable[[], bool]) -> None:
        self._job, self._changed, self._stopped = job, changed, stopped
        self._buffer = bytearray(BLOCK)

    def run(self) -> str | None:
        """Return the digest in hex when every piece has been read; None when the work was stopped. Raises OSError."""
        job = self._job
        digest = hashlib.sha256()
        for index in range(job.cut.count):
            while True:
                state = self._wait(index)
                if state is None:
                    return None
                before = digest.copy()
                crc = self._read(index, digest, state == CLAIMED)
                with self._changed:
                    if state == CLAIMED and crc != job.pieces.crc[index]:
                        # Its write never reached the disk, or the disk has spoiled it since.
                        digest = before
                        job.pieces.drop(index)
                        self._changed.notify_all()
                        continue
                    job.pieces.state[index] = PROVED
                    if state == CLAIMED:
                        job.reused += job.cut.length(index)
                break
        return digest.hexdigest()

    def _wait(self, index: int) -> int | None:
        with self._changed:
            while True:
                state = self._job.pieces.state[index]
                if self._stopped() or self._job.done:
                    return None
                if state in (HERE, CLAIMED):
                    return state
                self._changed.wait()

    def _read(self, index: int, digest: hashlib._Hash, with_crc: bool) -> int:
        start, stop = self._job.cut.span(index)
        crc = 0
        view = memoryview(self._buffer)
        while start < stop:
            count = os.preadv(self._job.descriptor, [view[: min(BLOCK, stop - start)]], start)
            if count == 0:
                break  # shorter than it was: the digest will tell
            digest.update(view[:count])
            if with_crc:
                crc = zlib.crc32(view[:count], crc)
            start += count
        return crc
