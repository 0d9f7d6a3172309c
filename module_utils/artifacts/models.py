"""What the module weights does: bring models, prove them, remove them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ansible.module_utils.fetch.sources import Source

from .ledger import Ledger
from .manifest import Model
from .progress import Progress
from .settling import Outcome, Settings, is_here, look, prune, refuse_early, settle
from .store import Store
from .survey import Stamp, survey


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
    with _holding(store, settings.check) as (made, ledger), ThreadPoolExecutor(settings.threads) as pool:
        if arrive:
            arrive()
        progress = _progress(settings, sum(_doubtful_bytes(store, model, ledger) for model in models))
        work = [look(store, model, pool, progress, ledger) for model in models]
        refuse_early(store, work, sources, settings)
        lacking = {entry.sha256: entry.size for item in work for entry in item.needed if not is_here(store, entry)}
        progress.total += sum(lacking.values())
        changed = made
        outcomes: list[Outcome] = []
        for item in work:
            outcome = settle(store, item, sources, settings, pool, progress, ledger)
            outcome.pruned = prune(store, item.model, settings, ledger)
            changed = changed or outcome.state != "present" or bool(outcome.pruned)
            outcomes.append(outcome)
        if not settings.check and not arrive:
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
        work = [look(store, model, pool, progress, ledger) for model in models]
        refuse_early(store, work, None, settings)
        pending = made
        for item in work:
            outcome = settle(store, item, None, dry, pool, progress, ledger)
            pruned = prune(store, item.model, dry, ledger)
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
    """Return one verdict per model, ``{name, revision, path, ok, files, bytes_hashed, faults}``; changes nothing.

    ``deep`` hashes every file again; otherwise only those whose stamp does not fit. Raises OSError.
    """
    verdicts: list[dict[str, Any]] = []
    with ThreadPoolExecutor(settings.threads) as pool:
        progress = _progress(settings, sum(model.total_size for model in models) if deep else 0)
        ledger = Ledger.read(store.ledger_file)
        for model in models:
            root = store.published(model)
            found = survey(
                root, model, ledger, Stamp.read(store.stamp(model)), pool, progress, deep, store.blobs.pieces_of
            )
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
    if settings.check:
        return Progress(None, "weights", total)
    return Progress(settings.progress_file, "weights", total, metrics=settings.metrics_file)


def _doubtful_bytes(store: Store, model: Model, ledger: Ledger) -> int:
    """Return about how much must be hashed: all of a published revision of which nothing is proved, else nothing."""
    published = store.published(model)
    if not published.is_dir() or Stamp.read(store.stamp(model)).chosen:
        return 0
    return model.total_size
