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

from ansible.module_utils.fetch.sources import Item, Source

from .errors import Refusal
from .inspection import inspect
from .ledger import Ledger
from .manifest import FileEntry, Model
from .progress import Progress
from .staging import How, supply
from .store import Store
from .survey import Stamp, Survey, survey

MOST_WORKERS = 16


@dataclass(frozen=True)
class Settings:
    """How to work: files hashed at once, revisions kept per model, bytes left free, where progress is written."""

    workers: int = 0
    keep_revisions: int = 2
    reserve_bytes: int = 0
    progress_file: Path | None = None
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
class _Work:
    """One model that is not yet as it should be."""

    model: Model
    found: Survey
    stamp: Stamp
    needed: list[FileEntry]


def present(
    store: Store, models: Sequence[Model], sources: Sequence[Source] | None, settings: Settings
) -> tuple[bool, list[Outcome]]:
    """Publish every model, changing as little as possible; tell whether anything changed, and what.

    ``sources`` None means that the control host has put the files into the staging folders already.
    Raises Refusal (nothing half-copied is ever visible then) and OSError.
    """
    with _holding(store, settings.check) as (made, ledger), ThreadPoolExecutor(settings.threads) as pool:
        progress = _progress(settings, sum(_doubtful_bytes(store, model, ledger) for model in models))
        work = [_look(store, model, pool, progress, ledger) for model in models]
        _refuse_early(store, work, sources, settings)
        lacking = {entry.sha256: entry.size for item in work for entry in item.needed if not _is_here(store, entry)}
        progress.total += sum(lacking.values())
        changed = made
        outcomes: list[Outcome] = []
        for item in work:
            outcome = _settle(store, item, sources, settings, pool, progress, ledger)
            outcome.pruned = _prune(store, item.model, settings, ledger)
            changed = changed or outcome.state != "present" or bool(outcome.pruned)
            outcomes.append(outcome)
        if not settings.check:
            for path in store.leftovers(models):
                store.delete(path, ledger)
            store.collect(models, ledger)
        progress.finish()
        return changed, outcomes


def planned(store: Store, models: Sequence[Model], settings: Settings) -> tuple[bool, list[dict[str, Any]]]:
    """Tell whether ``present`` would do anything, and which files must come from the control host for it.

    Each file is ``{model, path, size, folder}``; folder is where it is to be put. Raises Refusal when they do not
    fit, OSError.
    """
    with _holding(store, settings.check) as (made, ledger), ThreadPoolExecutor(settings.threads) as pool:
        dry = replace(settings, check=True)
        progress = _progress(dry, 0)
        work = [_look(store, model, pool, progress, ledger) for model in models]
        _refuse_early(store, work, None, settings)
        pending = made
        for item in work:
            outcome = _settle(store, item, None, dry, pool, progress, ledger)
            pruned = _prune(store, item.model, dry, ledger)
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
            if not _is_here(store, entry)
        ]


def verified(store: Store, models: Sequence[Model], settings: Settings, deep: bool) -> list[dict[str, Any]]:
    """Return one verdict per model, ``{name, revision, path, ok, files, bytes_hashed, faults}``; changes nothing.

    ``deep`` hashes every file again; otherwise only those whose stamp does not fit. Raises OSError.
    """
    verdicts: list[dict[str, Any]] = []
    with ThreadPoolExecutor(settings.threads) as pool:
        progress = _progress(settings, sum(model.total_size for model in models) if deep else 0)
        ledger = Ledger.read(store.ledger_file)
        for model in models:
            root = store.published(model)
            found = survey(root, model, ledger, Stamp.read(store.stamp(model)), pool, progress, deep)
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
    with _holding(store, check) as (_, ledger):
        for name, revision in wanted:
            for short in store.revisions(name):
                if revision is None or revision.startswith(short):
                    removed.append(str(store.models / name / short))
                    if not check:
                        store.remove(name, short, ledger)
        if removed and not check:
            store.collect([], ledger)
    return removed


@contextlib.contextmanager
def _holding(store: Store, check: bool) -> Iterator[tuple[bool, Ledger]]:
    """Make the directories, keep other runs away, read what is proved and write it down however the work ends.

    In check mode only tell whether directories are missing.
    """
    if check:
        there = all(path.is_dir() for path in (store.models, store.incoming, store.state))
        yield not there, Ledger.read(store.ledger_file)
        return
    made = store.prepare()
    with store.locked():
        ledger = Ledger.read(store.ledger_file)
        try:
            yield made, ledger
        finally:
            ledger.write()


def _progress(settings: Settings, total: int) -> Progress:
    return Progress(None if settings.check else settings.progress_file, "weights", total)


def _doubtful_bytes(store: Store, model: Model, ledger: Ledger) -> int:
    """Return about how much must be hashed: all of a published revision of which nothing is proved, else nothing."""
    published = store.published(model)
    if not published.is_dir() or Stamp.read(store.stamp(model)).chosen:
        return 0
    return model.total_size


def _look(store: Store, model: Model, pool: Executor, progress: Progress, ledger: Ledger) -> _Work:
    store.refuse_links(model)
    stamp = Stamp.read(store.stamp(model))
    found = survey(store.published(model), model, ledger, stamp, pool, progress)
    return _Work(model, found, stamp, [entry for entry in model.files if entry.path not in found.good])


def _is_here(store: Store, entry: FileEntry) -> bool:
    """Tell whether the store seems to have a file's bytes; they are proved before they are used."""
    try:
        return os.lstat(store.blobs.path(entry.sha256)).st_size == entry.size
    except FileNotFoundError:
        return False


def _refuse_early(store: Store, work: Sequence[_Work], sources: Sequence[Source] | None, settings: Settings) -> None:
    """Raise Refusal while nothing has changed: files that the source lacks, or a disk that is too small."""
    problems: list[str] = []
    missing: dict[str, int] = {}
    for item in work:
        for entry in item.needed:
            staged = store.staged(item.model) / entry.path
            arrived = _is_here(store, entry) or (staged.is_file() and staged.stat().st_size == entry.size)
            missing[entry.sha256] = 0 if arrived else entry.size - _reserved(store, entry)
            if sources is not None and not arrived:
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


def _settle(
    store: Store,
    item: _Work,
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
        outcome.fetched = [entry.path for entry in item.needed if not _is_here(store, entry)]
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
    if outcome.state != "present" or not newest or looked:
        # Later than all others, also when the clock was set back.
        latest = max((store.chosen(model.name, short) for short in others), default=0.0)
        chosen = item.stamp.chosen if item.stamp.chosen and newest else max(time.time(), latest + 1)
        Stamp(chosen, item.stamp.facts).write(store.stamp(model))
    return outcome


def _facts_of_new(store: Store, item: _Work) -> dict[str, Any]:
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


def _prune(store: Store, model: Model, settings: Settings, ledger: Ledger) -> list[str]:
    """Remove the revisions beyond those to keep; return their folders."""
    current = model.folder.partition("/")[2]
    others = [short for short in store.revisions(model.name) if short != current]
    pruned = others[max(settings.keep_revisions - 1, 0) :]
    if not settings.check:
        for short in pruned:
            store.remove(model.name, short, ledger)
    return [str(store.models / model.name / short) for short in pruned]
