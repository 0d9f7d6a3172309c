"""Bringing the bytes that a model lacks into the store of blobs, each proved before it gets its name there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from .blobs import sync_folder
from .errors import Refusal
from .ledger import Ledger
from .manifest import FileEntry, Model
from .progress import Progress
from .sources import Source
from .store import Store
from .transfer import hash_file, receive


@dataclass
class Supply:
    """What was done to have the bytes: copied from the source, found on the host, and the paths that were copied."""

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
    source: Source | None,
    pool: Executor,
    progress: Progress,
    ledger: Ledger,
) -> Supply:
    """Have a proved blob for every needed file.

    What an earlier run left is hashed again, not trusted: its bytes may never have reached the disk.
    Raises Refusal naming each bad file; good ones stay for the next run.
    """
    done = Supply()
    wanted = {entry.sha256: entry for entry in reversed(needed)}
    problems = _take_local(store, model, needed, pool, progress, ledger, done)
    lacking = [entry for sha256, entry in wanted.items() if not _is_proved(store, sha256, ledger)]
    done.reused = sum(entry.size for entry in wanted.values()) - sum(entry.size for entry in lacking)
    if source is None:
        for entry in lacking:
            why = problems.get(entry.sha256, "did not arrive")
            problems[entry.sha256] = f"model {model.name}: {entry.path} from the control host: {why}"
    else:
        problems = _fetch(store, model, lacking, source, pool, progress, ledger, done)
    if problems:
        raise Refusal([*problems.values(), f"Nothing was published; {store.published(model)} is as it was"])
    for folder in {store.blobs.path(sha256).parent for sha256 in wanted}:
        sync_folder(folder)
    return done


def _is_proved(store: Store, sha256: str, ledger: Ledger) -> bool:
    try:
        return ledger.digest(os.lstat(store.blobs.path(sha256))) == sha256
    except FileNotFoundError:
        return False


def _take_local(
    store: Store,
    model: Model,
    needed: Sequence[FileEntry],
    pool: Executor,
    progress: Progress,
    ledger: Ledger,
    done: Supply,
) -> dict[str, str]:
    """Prove blobs and staged files that nobody proved yet; return by digest what was wrong with staged ones."""

    def look(pair: tuple[FileEntry, Path]) -> _Local:
        entry, path = pair
        before = os.lstat(path)
        digest, size = hash_file(path, lambda count: progress.add(count, f"{model.name}/{entry.path}"))
        wrong = f"expected {entry.size} bytes with sha256 {entry.sha256}, found {size} bytes with {digest}"
        right = (digest, size) == (entry.sha256, entry.size)
        if right:
            sync_file(path)
        return _Local(entry, path, before, None if right else wrong)

    problems: dict[str, str] = {}
    found: list[tuple[FileEntry, Path]] = []
    for entry in needed:
        staged, blob = store.staged(model) / entry.path, store.blobs.path(entry.sha256)
        if staged.is_file():
            found.append((entry, staged))
        elif blob.is_file() and not _is_proved(store, entry.sha256, ledger):
            found.append((entry, blob))
    for local in pool.map(look, found):
        sha256 = local.entry.sha256
        if local.problem is not None:
            problems[sha256] = local.problem
            local.path.unlink()
        elif not _is_proved(store, sha256, ledger):
            if local.path != store.blobs.path(sha256):
                store.blobs.take_in(local.path, sha256)
            ledger.note(os.lstat(store.blobs.path(sha256)), sha256)
    return problems


def _fetch(
    store: Store,
    model: Model,
    lacking: Sequence[FileEntry],
    source: Source,
    pool: Executor,
    progress: Progress,
    ledger: Ledger,
    done: Supply,
) -> dict[str, str]:
    def bring(entry: FileEntry) -> tuple[FileEntry, str]:
        path = f"{model.name}/{entry.path}"
        part = store.blobs.partial / entry.sha256
        try:
            reader = source.open(path, entry.size)
            try:
                receive(reader, entry, part, source.describe(path), lambda count: progress.add(count, path))
            finally:
                reader.close()
        except Refusal as refusal:
            return entry, f"model {model.name}: {refusal}"
        except OSError as error:
            return entry, f"model {model.name}: {entry.path}: {error.strerror or error}"
        return entry, ""

    problems: dict[str, str] = {}
    # The largest first, so that the workers end at about the same time.
    for entry, problem in pool.map(bring, sorted(lacking, key=lambda item: -item.size)):
        if problem:
            problems[entry.sha256] = problem
            continue
        ledger.note(os.lstat(store.blobs.take_in(store.blobs.partial / entry.sha256, entry.sha256)), entry.sha256)
        done.copied += entry.size
        done.fetched.append(entry.path)
    return problems


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
