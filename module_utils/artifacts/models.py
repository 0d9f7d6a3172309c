"""What the module weights does: bring models, prove them, remove them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import Refusal
from .manifest import FileEntry, Model
from .progress import Progress
from .sources import Source
from .staging import stage
from .store import Store, delete
from .survey import Stamp, Survey, survey

MOST_WORKERS = 4


@dataclass(frozen=True)
class Settings:
    """How to work: parallel files, revisions kept per model, bytes left free, where progress is written."""

    workers: int = 0
    keep_revisions: int = 2
    reserve_bytes: int = 0
    progress_file: Path | None = None
    check: bool = False

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
    fetched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)


@dataclass
class _Work:
    """One model that is not yet as it should be."""

    model: Model
    found: Survey
    needed: list[FileEntry]


def present(
    store: Store, models: Sequence[Model], source: Source | None, settings: Settings
) -> tuple[bool, list[Outcome]]:
    """Publish every model, changing as little as possible; tell whether anything changed, and what.

    ``source`` None means that the control host has put the files into the staging folders already.
    Raises Refusal (nothing half-copied is ever visible then) and OSError.
    """
    with _holding(store, settings.check) as made, ThreadPoolExecutor(settings.threads) as pool:
        stamps = {model: Stamp.read(store.stamp(model)) for model in models}
        progress = _progress(settings, sum(_doubtful_bytes(store, model, stamps[model]) for model in models))
        work = [_look(store, model, stamps[model], pool, progress) for model in models]
        _refuse_early(store, work, source, settings)
        progress.total += sum(entry.size for item in work for entry in item.needed)
        changed = made
        outcomes: list[Outcome] = []
        for item in work:
            outcome = _settle(store, item, stamps[item.model], source, settings, pool, progress)
            outcome.pruned = _prune(store, item.model, settings)
            changed = changed or outcome.state != "present" or bool(outcome.pruned)
            outcomes.append(outcome)
        if not settings.check:
            for path in store.leftovers(models):
                delete(path)
        progress.finish()
        return changed, outcomes


def planned(store: Store, models: Sequence[Model], settings: Settings) -> tuple[bool, list[dict[str, Any]]]:
    """Tell whether ``present`` would do anything, and which files must come from the control host for it.

    Each file is ``{model, path, size, folder}``; folder is where it is to be put. Raises Refusal when they do not
    fit, OSError.
    """
    with _holding(store, settings.check) as made, ThreadPoolExecutor(settings.threads) as pool:
        dry = replace(settings, check=True)
        progress = _progress(dry, 0)
        stamps = {model: Stamp.read(store.stamp(model)) for model in models}
        work = [_look(store, model, stamps[model], pool, progress) for model in models]
        _refuse_early(store, work, None, settings)
        pending = made
        for item in work:
            outcome = _settle(store, item, stamps[item.model], None, dry, pool, progress)
            pruned = _prune(store, item.model, dry)
            pending = pending or outcome.state != "present" or bool(outcome.bytes_hashed or pruned)
        return pending, [
            {
                "model": item.model.name,
                "path": entry.path,
                "size": entry.size,
                "folder": f"{(store.staged(item.model) / entry.path).parent}/",
            }
            for item in work
            for entry in item.needed
        ]


def verified(store: Store, models: Sequence[Model], settings: Settings, deep: bool) -> list[dict[str, Any]]:
    """Return one verdict per model, ``{name, revision, path, ok, files, bytes_hashed, faults}``; changes nothing.

    ``deep`` hashes every file again; otherwise only those whose stamp does not fit. Raises OSError.
    """
    verdicts: list[dict[str, Any]] = []
    with ThreadPoolExecutor(settings.threads) as pool:
        progress = _progress(settings, sum(model.total_size for model in models) if deep else 0)
        for model in models:
            root = store.published(model)
            stamp = Stamp.read(store.stamp(model))
            found = survey(root, model, stamp.files, pool, progress, deep)
            faults = [{**vars(fault), "text": fault.text(root)} for fault in found.faults]
            faults += [
                {
                    "path": path,
                    "kind": "unlisted",
                    "expected": "nothing",
                    "found": "a file that the manifest does not list",
                    "text": f"{root / path}: the manifest does not list it",
                }
                for path in found.unlisted
            ]
            if not found.exists:
                text = f"{root}: expected {len(model.files)} files, found no such folder"
                faults = [{"path": "", "kind": "missing", "expected": "a folder", "found": "nothing", "text": text}]
            verdicts.append(
                {
                    "name": model.name,
                    "revision": model.revision,
                    "path": str(root),
                    "ok": found.ok,
                    "files": len(model.files),
                    "bytes_hashed": found.hashed_bytes,
                    "faults": faults,
                }
            )
        progress.finish()
    return verdicts


def absent(store: Store, wanted: Sequence[tuple[str, str | None]], check: bool) -> list[str]:
    """Remove models (name, revision; no revision means all of them); return the folders removed. Raises OSError."""
    removed: list[str] = []
    if not store.models.is_dir():
        return removed
    with _holding(store, check):
        for name, revision in wanted:
            for short in store.revisions(name):
                if revision is None or revision.startswith(short):
                    removed.append(str(store.models / name / short))
                    if not check:
                        store.remove(name, short)
    return removed


@contextlib.contextmanager
def _holding(store: Store, check: bool) -> Iterator[bool]:
    """Make the directories and keep other runs away; in check mode only tell whether directories are missing."""
    if check:
        yield not (store.models.is_dir() and store.incoming.is_dir() and store.state.is_dir())
        return
    made = store.prepare()
    with store.locked():
        yield made


def _progress(settings: Settings, total: int) -> Progress:
    return Progress(None if settings.check else settings.progress_file, "weights", total)


def _doubtful_bytes(store: Store, model: Model, stamp: Stamp) -> int:
    """Return about how much must be hashed: all of a published revision without a stamp, else nothing."""
    return 0 if stamp.files or not store.published(model).is_dir() else model.total_size


def _look(store: Store, model: Model, stamp: Stamp, pool: Executor, progress: Progress) -> _Work:
    store.refuse_links(model)
    found = survey(store.published(model), model, stamp.files, pool, progress)
    return _Work(model, found, [entry for entry in model.files if entry.path not in found.good])


def _refuse_early(store: Store, work: Sequence[_Work], source: Source | None, settings: Settings) -> None:
    """Raise Refusal while nothing has changed: files that the source lacks, or a disk that is too small."""
    problems: list[str] = []
    missing = 0
    for item in work:
        for entry in item.needed:
            staged = store.staged(item.model) / entry.path
            arrived = staged.is_file() and staged.stat().st_size == entry.size
            missing += 0 if arrived else entry.size
            path = f"{item.model.name}/{entry.path}"
            if source is not None and not arrived and (problem := source.problem(path, entry.size)):
                problems.append(f"model {item.model.name}: {problem}")
    if problems:
        raise Refusal(problems)
    where = store.models
    while not where.is_dir():
        where = where.parent
    disk = os.statvfs(where)
    free = disk.f_bavail * disk.f_frsize
    short = missing + settings.reserve_bytes - free
    if missing and short > 0:
        raise Refusal(
            f"{store.models}: needs {short} more bytes: {missing} for files that are not there yet and "
            f"{settings.reserve_bytes} to be left free (weights_reserve_bytes), {free} are free"
        )


def _settle(
    store: Store,
    item: _Work,
    stamp: Stamp,
    source: Source | None,
    settings: Settings,
    pool: Executor,
    progress: Progress,
) -> Outcome:
    """Bring one model to its wanted state."""
    model, found = item.model, item.found
    path = store.published(model)
    outcome = Outcome(model.name, model.revision, str(path), "present", bytes_hashed=found.hashed_bytes)
    outcome.removed = list(found.unlisted)
    outcome.fetched = [entry.path for entry in item.needed]
    if not found.exists:
        outcome.state = "published"
    elif not found.ok or found.modes:
        outcome.state = "mended"
    elif not stamp.files:
        outcome.state = "adopted"
    if settings.check:
        return outcome
    if not found.ok:
        store.clear_staging(model)
        outcome.bytes_copied, outcome.bytes_reused = stage(store, model, item.needed, source, pool, progress)
        store.publish(model, found.unlisted)
    for name, mode in found.modes.items():
        if os.path.lexists(path / name):
            os.chmod(path / name, mode)
    others = [short for short in store.revisions(model.name) if short != path.name]
    newest = all(stamp.chosen > store.chosen(model.name, short) for short in others)
    if outcome.state != "present" or found.hashed_bytes or not newest:
        store.stamp_all(model, stamp.chosen if stamp.chosen and newest else time.time())
    return outcome


def _prune(store: Store, model: Model, settings: Settings) -> list[str]:
    """Remove the revisions beyond those to keep; return their folders."""
    current = model.folder.partition("/")[2]
    others = [short for short in store.revisions(model.name) if short != current]
    pruned = others[max(settings.keep_revisions - 1, 0) :]
    if not settings.check:
        for short in pruned:
            store.remove(model.name, short)
    return [str(store.models / model.name / short) for short in pruned]
