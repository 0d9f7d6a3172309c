"""What the module weights does: bring models, prove them, remove them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.fetch.sources import Source

from .holdings import references
from .inventory import METRICS, refresh
from .ledger import Ledger
from .manifest import Model
from .progress import PROVING, Progress
from .reading import Reading
from .reproof import note_what_was_read
from .settling import Outcome, Settings, Work, is_here, look, refuse_early, settle
from .staging import is_proved
from .store import Store
from .survey import Stamp, survey
from .tidying import protect_files, prune, prune_unlisted, refuse_protection, unreadable


def present(
    store: Store,
    models: Sequence[Model],
    sources: Sequence[Source] | None,
    settings: Settings,
    arrive: Callable[[], None] | None = None,
) -> tuple[bool, list[Outcome]]:
    """Publish every model, changing as little as possible; tell whether anything changed, and what.

    ``sources`` None means that the control host has put the files into the staging folders already, or that ``arrive``
    does so, which is called when no other run works on the store. Then these are not all models of the host: what
    others left on its way stays.
    Raises Refusal (nothing half-copied is ever visible then) and OSError.
    """
    with contextlib.ExitStack() as held:
        made, ledger = held.enter_context(_holding(store, settings))
        pool = held.enter_context(ThreadPoolExecutor(settings.threads))
        if arrive:
            arrive()
        doubtful = sum(_doubtful_bytes(store, model, ledger) for model in models)
        progress = held.enter_context(_progress(settings, doubtful).beating())
        work = [look(store, model, pool, progress, ledger) for model in models]
        refuse_early(store, work, sources, settings)
        used = references(store, settings.releases)
        lacking = {entry.sha256: entry.size for item in work for entry in item.needed if not is_here(store, entry)}
        progress.total += sum(lacking.values())
        changed = made
        outcomes: list[Outcome] = []
        with _exchanging(store, work, settings, ledger):
            for item in work:
                outcome = settle(store, item, sources, settings, pool, progress, ledger)
                outcome.pruned = prune(store, item.model, settings, used, ledger)
                changed = changed or outcome.state != "present" or bool(outcome.pruned)
                outcomes.append(outcome)
        if not arrive:  # who brings one model says nothing about the others, nor about how files are protected
            if outcomes:
                outcomes[0].pruned += prune_unlisted(store, models, settings, used, ledger)
                outcomes[0].warnings += unreadable(used)
                changed = changed or bool(outcomes[0].pruned)
            if not settings.check:
                for path in store.leftovers(models):
                    store.delete(path, ledger)
                store.collect(models, ledger)
            changed = protect_files(store, settings, ledger) or changed
        return changed, outcomes


def planned(store: Store, models: Sequence[Model], settings: Settings) -> tuple[bool, list[dict[str, Any]]]:
    """Tell whether ``present`` would do anything, and which files must come from the control host for it.

    Each file is ``{model, path, size, folder}``; folder is where it is to be put. Raises Refusal when they do not
    fit, OSError.
    """
    with _holding(store, settings) as (made, ledger), ThreadPoolExecutor(settings.threads) as pool:
        dry = replace(settings, check=True)
        progress = _progress(dry, 0)
        work = [look(store, model, pool, progress, ledger) for model in models]
        refuse_early(store, work, None, settings)
        used = references(store, settings.releases)
        pending = bool(made or prune_unlisted(store, models, dry, used, ledger) or protect_files(store, dry, ledger))
        for item in work:
            outcome = settle(store, item, None, dry, pool, progress, ledger)
            pruned = prune(store, item.model, dry, used, ledger)
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
            if not is_here(store, entry)
        ]


def verified(store: Store, models: Sequence[Model], settings: Settings, deep: bool) -> list[dict[str, Any]]:
    """Return one verdict per model, ``{name, revision, path, ok, files, bytes_hashed, faults}``; changes no model.

    ``deep`` hashes every file again; otherwise only those whose stamp does not fit. What was read is written down where
    that is possible, so that the next run mends what was found, and no proof is made twice. Raises OSError.
    """
    verdicts: list[dict[str, Any]] = []
    read: list[Reading] = []
    total = sum(model.total_size for model in models) if deep else 0
    with ThreadPoolExecutor(settings.threads) as pool, _progress(settings, total).beating() as progress:
        ledger = Ledger.read(store.ledger_file)
        for model in models:
            root = store.published(model)
            found = survey(
                root, model, ledger, Stamp.read(store.stamp(model)), pool, progress, deep, store.blobs.pieces_of
            )
            read += found.read
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
    if not settings.check:
        note_what_was_read(store, read, settings.releases)
    return verdicts


def absent(store: Store, wanted: Sequence[tuple[str, str | None]], settings: Settings) -> list[str]:
    """Remove models (name, revision; no revision means all of them); return the folders removed. Raises OSError."""
    removed: list[str] = []
    if not store.models.is_dir():
        return removed
    with _holding(store, settings) as (_, ledger):
        for name, revision in wanted:
            for short in store.revisions(name):
                if revision is None or revision.startswith(short):
                    removed.append(str(store.models / name / short))
                    if not settings.check:
                        store.remove(name, short, ledger)
        if removed and not settings.check:
            store.collect([], ledger)
            protect_files(store, settings, ledger)
    return removed


@contextlib.contextmanager
def _holding(store: Store, settings: Settings) -> Iterator[tuple[bool, Ledger]]:
    """Make the directories, keep other runs away, read what is proved and write it down however the work ends.

    In check mode only tell whether directories are missing. Raises Refusal where files cannot be protected as wished.
    """
    if settings.check:
        there = all(path.is_dir() for path in (store.models, store.incoming, store.state))
        yield not there, Ledger.read(store.ledger_file)
        return
    made = store.prepare()
    with store.locked():
        refuse_protection(store, settings)
        ledger = Ledger.read(store.ledger_file)
        try:
            yield made, ledger
        finally:
            ledger.write()
            refresh(store, ledger, settings.releases, _care_metrics(settings))


def _care_metrics(settings: Settings) -> Path | None:
    """Return the re-proof's metrics, if a re-proof has ever written them: a mended file is then told at once."""
    beside = settings.metrics_file.with_name(METRICS) if settings.metrics_file is not None else None
    return beside if beside is not None and beside.is_file() else None


@contextlib.contextmanager
def _exchanging(store: Store, work: Sequence[Work], settings: Settings, ledger: Ledger) -> Iterator[None]:
    """Tell the other hosts what this one has and needs while the work goes on, where there are any."""
    fanout = settings.how.fanout
    if fanout is None or settings.check:
        yield
        return
    files = [[(entry.sha256, entry.size) for entry in item.model.files] for item in work]
    every = {sha256 for listed in files for sha256, _ in listed}
    fanout.begin(files, {sha256 for sha256 in every if is_proved(store, sha256, ledger)})
    try:
        yield
    finally:
        fanout.close()


def _progress(settings: Settings, total: int) -> Progress:
    if settings.check:
        return Progress(None, "weights", total)
    return Progress(settings.progress_file, "weights", total, metrics=settings.metrics_file, phase=PROVING)


def _doubtful_bytes(store: Store, model: Model, ledger: Ledger) -> int:
    """Return about how much must be hashed: all of a published revision of which nothing is proved, else nothing."""
    published = store.published(model)
    if not published.is_dir() or Stamp.read(store.stamp(model)).chosen:
        return 0
    return model.total_size
