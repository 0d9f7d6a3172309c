"""After the models are as they should be: what may go, and how what stays is protected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import Refusal
from .holdings import References, holdings, trees
from .ledger import Ledger
from .manifest import Model
from .protection import is_protected, problem, protect
from .settling import Settings
from .store import Store


def prune(store: Store, model: Model, settings: Settings, used: References, ledger: Ledger) -> list[str]:
    """Remove the revisions beyond those to keep, and that no release refers to; return their folders."""
    current = model.folder.partition("/")[2]
    others = [short for short in store.revisions(model.name) if short != current]
    surplus = others[max(settings.keep_revisions - 1, 0) :]
    return _remove(store, [f"{model.name}/{short}" for short in surplus], settings, used, ledger)


def prune_unlisted(
    store: Store, models: Sequence[Model], settings: Settings, used: References, ledger: Ledger
) -> list[str]:
    """Remove models that are neither listed nor in a release, if they shall not stay; return their folders.

    A run without any model removes none: a list that is empty by mistake must not cost terabytes.
    """
    if settings.keep_unlisted or not models:
        return []
    listed = {model.name for model in models}
    surplus = [tree for tree in trees(store) if tree.partition("/")[0] not in listed]
    return _remove(store, surplus, settings, used, ledger)


def _remove(store: Store, surplus: Sequence[str], settings: Settings, used: References, ledger: Ledger) -> list[str]:
    removed = [tree for tree in surplus if not used.keeps(tree)]
    for tree in removed if not settings.check else ():
        name, _, short = tree.partition("/")
        store.remove(name, short, ledger)
    return [str(store.models / tree) for tree in removed]


def unreadable(used: References) -> list[str]:
    """Say for which releases nobody knows what they refer to."""
    return [
        f"release {number} has no readable manifest.json, so no revision was removed; remove the release, or run serve"
        for number in used.unreadable
    ]


def refuse_protection(store: Store, settings: Settings) -> None:
    """Raise Refusal, while nothing has changed, where files cannot be protected as wished."""
    why = problem(store.incoming, settings.protect)
    if why is not None:
        raise Refusal(f"weights_protect is {settings.protect}, but in {store.models} {why}; set it to none, or move")


def protect_files(store: Store, settings: Settings, ledger: Ledger) -> bool:
    """Give every file of the store its protection, or take it away; tell whether anything changed. Raises OSError."""
    lacking = [item for item in holdings(store, ledger) if not is_protected(item.places[0], settings.protect)]
    for item in lacking if not settings.check else ():
        _protect(item.places[0], settings.protect, ledger)
    return bool(lacking)


def _protect(path: Path, kind: str, ledger: Ledger) -> None:
    with ledger.moving([path], lambda _: path):
        protect(path, kind)
