"""Bringing the bytes that a model lacks into the store of blobs, each proved before it gets its name there."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.fanout.peers import Fanout
from ansible.module_utils.fetch.engine import fetch
from ansible.module_utils.fetch.job import Job, Seed
from ansible.module_utils.fetch.journal import kept_cut, read_journal, write_pieces
from ansible.module_utils.fetch.kernel import sync_file_system
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.sources import Item, Source

from .errors import Refusal
from .ledger import Ledger
from .manifest import FileEntry, Model
from .progress import FETCHING, PROVING, PUBLISHING, Progress
from .protection import loosen
from .store import Store
from .transfer import hash_file

LEDGER_INTERVAL = 30.0  # seconds after which proofs of large files are written down


@dataclass(frozen=True)
class How:
    """How to fetch: limits, bytes of a piece (0: by the file's size), and the exchange with other hosts, if any."""

    limits: Limits = field(default_factory=Limits)
    piece: int = 0
    fanout: Fanout | None = None


@dataclass
class Supply:
    """What was done to have the bytes: fetched ones, those found on the host, and the paths that were fetched."""

    copied: int = 0
    reused: int = 0
    fetched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Local:
    """A file that may hold wanted bytes already, and what hashing it said."""

    entry: FileEntry
    path: Path
    before: os.stat_result
    problem: str | None


def supply(
    store: Store,
    model: Model,
    needed: Sequence[FileEntry],
    wrong: Collection[int],
    sources: Sequence[Source] | None,
    how: How,
    pool: Executor,
    progress: Progress,
    ledger: Ledger,
) -> Supply:
    """Have a proved blob for every needed file; ``sources`` None means that the control host has sent what is lacking.

    ``wrong`` holds inodes that were just read and are not what they should be.
    What an earlier run left is hashed again, not trusted: its bytes may never have reached the disk.
    Raises Refusal naming each bad file; good ones, and pieces of others, stay for the next run.
    """
    progress.enter(PROVING)
    done = Supply()
    wanted = {entry.sha256: entry for entry in reversed(needed)}
    problems = _take_local(store, model, needed, wrong, pool, progress, ledger)
    lacking = [entry for sha256, entry in wanted.items() if not is_proved(store, sha256, ledger)]
    if how.fanout:
        how.fanout.has(wanted.keys() - {entry.sha256 for entry in lacking})
    done.reused = sum(entry.size for entry in wanted.values()) - sum(entry.size for entry in lacking)
    if sources is None:
        for entry in lacking:
            why = problems.get(entry.sha256, "did not arrive")
            problems[entry.sha256] = f"model {model.name}: {entry.path} from the control host: {why}"
    else:
        problems = _Arrivals(store, model, progress, ledger, done).fetch(lacking, sources, how)
    if problems:
        raise Refusal([*problems.values(), f"Nothing was published; {store.published(model)} is as it was"])
    progress.enter(PUBLISHING)
    store.blobs.sync(wanted)
    return done


def is_proved(store: Store, sha256: str, ledger: Ledger) -> bool:
    """Tell whether the store has the file, as it was when its bytes were proved. Raises OSError."""
    try:
        return bool(ledger.digest(os.lstat(store.blobs.path(sha256))) == sha256)
    except FileNotFoundError:
        return False


def _take_local(
    store: Store,
    model: Model,
    needed: Sequence[FileEntry],
    wrong: Collection[int],
    pool: Executor,
    progress: Progress,
    ledger: Ledger,
) -> dict[str, str]:
    """Prove blobs and staged files that nobody proved yet; return by digest what was wrong with staged ones.

    A damaged blob is put aside when it is known which of its pieces should be what, so that those are fetched only.
    """

    def look(pair: tuple[FileEntry, Path]) -> _Local:
        entry, path = pair
        before = os.lstat(path)
        if before.st_ino in wrong or before.st_size != entry.size:
            return _Local(entry, path, before, f"expected {entry.size} bytes, found {before.st_size}, or wrong ones")
        digest, size = hash_file(path, lambda count: progress.add(count, f"{model.name}/{entry.path}"))
        said = f"expected {entry.size} bytes with sha256 {entry.sha256}, found {size} bytes with {digest}"
        right = (digest, size) == (entry.sha256, entry.size)
        if right:
            sync_file(path)
        return _Local(entry, path, before, None if right else said)

    problems: dict[str, str] = {}
    found: dict[Path, FileEntry] = {}
    for entry in needed:
        staged, blob = store.staged(model) / entry.path, store.blobs.path(entry.sha256)
        if staged.is_file():
            found[staged] = entry
        elif blob.is_file() and not is_proved(store, entry.sha256, ledger):
            found[blob] = entry
    for local in pool.map(look, [(entry, path) for path, entry in found.items()]):
        sha256 = local.entry.sha256
        blob = store.blobs.path(sha256)
        if local.problem is not None:
            problems[sha256] = local.problem
            loosen(local.path)
            if local.path == blob and store.blobs.pieces_of(sha256).is_file():
                os.replace(blob, store.blobs.damaged(sha256))
            else:
                local.path.unlink()
        elif not is_proved(store, sha256, ledger):
            if local.path != blob:
                store.blobs.take_in(local.path, sha256)
            ledger.note(os.lstat(blob), sha256)
    return problems


class _Arrivals:
    """Takes what the engine has fetched into the store."""

    def __init__(self, store: Store, model: Model, progress: Progress, ledger: Ledger, done: Supply) -> None:
        self._store, self._model, self._progress, self._ledger = store, model, progress, ledger
        self._done = done
        self._small: list[str] = []
        self._problems: dict[str, str] = {}
        self._fanout: Fanout | None = None
        self._written = time.monotonic()

    def fetch(self, lacking: Sequence[FileEntry], sources: Sequence[Source], how: How) -> dict[str, str]:
        """Fetch files; return by digest what was wrong. Raises Refusal (disk full), OSError."""
        if not lacking:
            return {}
        jobs = [self._job(entry, sources, how) for entry in lacking]
        self._fanout = how.fanout
        may_begin = how.fanout.may_begin if how.fanout else None
        try:
            self._progress.enter(FETCHING)
            fetch(jobs, how.limits, self._count, self._take, self._progress.tick, may_begin)
        finally:
            if self._small:
                # One call for all small files; only then are they known as proved.
                sync_file_system(str(self._store.blobs.partial))
                for sha256 in self._small:
                    self._ledger.note(os.lstat(self._store.blobs.path(sha256)), sha256)
        order = {entry.path: number for number, entry in enumerate(self._model.files)}
        self._done.fetched.sort(key=lambda path: order.get(path, 0))
        return self._problems

    def _job(self, entry: FileEntry, sources: Sequence[Source], how: How) -> Job:
        item = Item(self._model.name, self._model.revision, entry.path, entry.size, entry.sha256, self._model.repo)
        known = self._store.blobs.pieces_of(entry.sha256)
        cut = kept_cut(known, entry.size)
        job = Job(item, self._store.blobs.partial / entry.sha256, sources, cut.piece if cut else how.piece)
        crcs = read_journal(known, job.cut)
        for copy in (self._store.blobs.damaged(entry.sha256), self._store.published(self._model) / entry.path):
            if crcs and copy.is_file() and not copy.is_symlink():
                job.seed = Seed(copy, {index: crc for index, (crc, _) in crcs.items()})
                break
        return job

    def _count(self, count: int, label: str) -> None:
        self._progress.add(count, label)
        if self._fanout:
            self._fanout.received(count)

    def _take(self, job: Job) -> None:
        self._take_in(job)
        if self._fanout:
            self._fanout.ended(job)

    def _take_in(self, job: Job) -> None:
        sha256, blobs = job.item.sha256, self._store.blobs
        self._done.copied += job.received
        self._done.reused += job.reused
        if job.problems:
            texts = "; then ".join(job.problems)
            self._problems[sha256] = f"model {self._model.name}: {texts}"
            return
        blobs.take_in(job.path, sha256)
        self._done.fetched.append(job.item.path)
        if job.small:
            self._small.append(sha256)
            return
        blobs.sync([sha256])
        write_pieces(blobs.pieces_of(sha256), job.cut, job.pieces.crc)
        job.journal_path.unlink(missing_ok=True)
        blobs.damaged(sha256).unlink(missing_ok=True)
        self._ledger.note(os.lstat(blobs.path(sha256)), sha256)
        if time.monotonic() - self._written > LEDGER_INTERVAL:
            self._ledger.write()
            self._written = time.monotonic()


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
