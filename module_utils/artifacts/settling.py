"""The work on one model: what it lacks, bringing it, publishing it, removing revisions that are too old."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.fetch.sources import Item, Source

from .errors import Refusal
from .inspection import inspect
from .ledger import Ledger
from .manifest import FileEntry, Model
from .progress import Progress
from .protection import NONE
from .staging import How, supply
from .store import Store
from .survey import Stamp, Survey, survey

MOST_WORKERS = 16


@dataclass(frozen=True)
class Settings:
    """How to work: files hashed at once, what is kept, bytes left free, where progress is written.

    `releases` is where releases are, whose revisions are kept whatever number `keep_revisions` says. With
    `keep_unlisted`, models that no run asks for any more stay too.
    """

    workers: int = 0
    keep_revisions: int = 2
    keep_unlisted: bool = True
    releases: Path | None = None
    protect: str = NONE
    reserve_bytes: int = 0
    progress_file: Path | None = None
    metrics_file: Path | None = None
    check: bool = False
    how: How = field(default_factory=How)

    @property
    def threads(self) -> int:
        """Return how many files are worked on at once."""
        return self.workers or min(MOST_WORKERS, os.cpu_count() or 1)


@dataclass
class Outcome:
    """What was done for one model."""

    name: str
    revision: str
    path: str
    state: str
    bytes_copied: int = 0
    bytes_reused: int = 0
    bytes_hashed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)


@dataclass
class Work:
    """One model that is not yet as it should be."""

    model: Model
    found: Survey
    stamp: Stamp
    needed: list[FileEntry]


def look(store: Store, model: Model, pool: Executor, progress: Progress, ledger: Ledger) -> Work:
    """Compare what is published of a model with its manifest. Raises Refusal for links, OSError."""
    store.refuse_links(model)
    stamp = Stamp.read(store.stamp(model))
    found = survey(store.published(model), model, ledger, stamp, pool, progress)
    return Work(model, found, stamp, [entry for entry in model.files if entry.path not in found.good])


def is_here(store: Store, entry: FileEntry) -> bool:
    """Tell whether the store seems to have a file's bytes; they are proved before they are used."""
    try:
        return os.lstat(store.blobs.path(entry.sha256)).st_size == entry.size
    except FileNotFoundError:
        return False


def refuse_early(store: Store, work: Sequence[Work], sources: Sequence[Source] | None, settings: Settings) -> None:
    """Raise Refusal while nothing has changed: files that the source lacks, or a disk that is too small."""
    problems: list[str] = []
    missing: dict[str, int] = {}
    for item in work:
        for entry in item.needed:
            staged = store.staged(item.model) / entry.path
            arrived = is_here(store, entry) or (staged.is_file() and staged.stat().st_size == entry.size)
            missing[entry.sha256] = 0 if arrived else entry.size - _reserved(store, entry)
            # With other hosts to ask, nobody knows before asking them.
            if sources is not None and not arrived and settings.how.fanout is None:
                problems += _no_source(item.model, entry, sources)
    if problems:
        raise Refusal(problems)
    where = store.models
    while not where.is_dir():
        where = where.parent
    disk = os.statvfs(where)
    free = disk.f_bavail * disk.f_frsize
    needed = sum(missing.values())
    short = needed + settings.reserve_bytes - free
    if needed and short > 0:
        raise Refusal(
            f"{store.models}: needs {short} more bytes: {needed} for files that are not there yet and "
            f"{settings.reserve_bytes} to be left free (weights_reserve_bytes), {free} are free"
        )


def _reserved(store: Store, entry: FileEntry) -> int:
    """Return the bytes on the disk that a file on its way has already."""
    try:
        found = os.lstat(store.blobs.partial / entry.sha256)
    except FileNotFoundError:
        return 0
    return min(entry.size, found.st_blocks * 512)


def _no_source(model: Model, entry: FileEntry, sources: Sequence[Source]) -> list[str]:
    """Say why no source can have a file, as far as that is known without asking servers."""
    item = Item(model.name, model.revision, entry.path, entry.size, entry.sha256, model.repo)
    problems = [source.problem(item) for source in sources]
    return [f"model {model.name}: {problem}" for problem in problems if problem] if all(problems) else []


def settle(
    store: Store,
    item: Work,
    sources: Sequence[Source] | None,
    settings: Settings,
    pool: Executor,
    progress: Progress,
    ledger: Ledger,
) -> Outcome:
    """Bring one model to its wanted state."""
    model, found = item.model, item.found
    path = store.published(model)
    outcome = Outcome(model.name, model.revision, str(path), "present", bytes_hashed=found.hashed_bytes)
    outcome.removed = list(found.unlisted)
    if not found.exists:
        outcome.state = "published"
    elif not found.ok or found.modes:
        outcome.state = "mended"
    elif not item.stamp.chosen:
        outcome.state = "adopted"
    if settings.check:
        outcome.fetched = [entry.path for entry in item.needed if not is_here(store, entry)]
        if outcome.state == "present" and found.single & found.good:
            outcome.state = "adopted"
        return outcome
    if not found.ok:
        store.clear_staging(model, ledger)
        had = supply(store, model, item.needed, found.wrong, sources, settings.how, pool, progress, ledger)
        outcome.bytes_copied, outcome.bytes_reused, outcome.fetched = had.copied, had.reused, had.fetched
        item.stamp.facts = _facts_of_new(store, item)
        store.publish(model, item.needed, found.unlisted, ledger, found.exists)
    for name, mode in found.modes.items():
        if os.path.lexists(path / name):
            _set_mode(store, path / name, mode, ledger)
    adopted = [
        store.blobs.adopt(path / entry.path, entry.sha256, ledger)
        for entry in model.files
        if entry.path in found.single & found.good
    ]
    if outcome.state == "present" and any(adopted):
        outcome.state = "adopted"
    looked = not item.stamp.facts
    if looked:
        item.stamp.facts, outcome.warnings = inspect(model, lambda entry: path / entry.path)
    outcome.facts = item.stamp.facts
    others = [short for short in store.revisions(model.name) if short != path.name]
    newest = all(item.stamp.chosen > store.chosen(model.name, short) for short in others)
    if outcome.state != "present" or not newest or looked or item.stamp.revision != model.revision:
        # Later than all others, also when the clock was set back.
        latest = max((store.chosen(model.name, short) for short in others), default=0.0)
        chosen = item.stamp.chosen if item.stamp.chosen and newest else max(time.time(), latest + 1)
        Stamp(chosen, item.stamp.facts, model.revision).write(store.stamp(model))
    return outcome


def _facts_of_new(store: Store, item: Work) -> dict[str, Any]:
    """Read the headers of files before anybody sees them. Raises Refusal for a model that no engine could load."""
    needed = {entry.path for entry in item.needed}
    published = store.published(item.model)

    def place(entry: FileEntry) -> Path:
        return store.blobs.path(entry.sha256) if entry.path in needed else published / entry.path

    facts, problems = inspect(item.model, place)
    if problems:
        texts = [f"model {item.model.name}: {problem}" for problem in problems]
        raise Refusal(
            [*texts, f"The files are as the lock says, so the lock is of a broken model; {published} is as it was"]
        )
    return facts


def _set_mode(store: Store, path: Path, mode: int, ledger: Ledger) -> None:
    with ledger.moving([path] if path.is_file() else [], lambda _: path):
        os.chmod(path, mode)
