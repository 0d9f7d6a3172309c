"""What the lock says of a site's images and models, laid over what the inventory says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.problems import Problems

AGAIN = "make the lock anew: ./redoubt play lock"
_IMAGE_FIELDS = ("name", "tag", "digest", "config_digest", "archive", "archive_sha256", "size")
_FIXED = ("name", "tag", "digest", "config_digest", "archive_sha256")


def images(written: Mapping[str, object], lock: Mapping[str, Any] | None, problems: Problems) -> Mapping[str, object]:
    """Return redoubt_images with what the lock knows better; all of the lock's where the inventory lists none."""
    known = _rows(lock, "images")
    if not known:
        return written
    rows = {key: {name: row[name] for name in _IMAGE_FIELDS if row.get(name)} for key, row in known.items()}
    if not written:
        return rows
    made: dict[str, object] = {}
    for key, entry in written.items():
        row = rows.get(key)
        if row is None or not isinstance(entry, Mapping):
            made[key] = entry
            continue
        differing = [name for name in _FIXED if entry.get(name) and row.get(name) and entry[name] != row[name]]
        if differing:
            why = f"the lock has another image: {_both(entry, row, differing[0])}"
            problems.add(f"redoubt_images.{key}.{differing[0]}", why, AGAIN)
        made[key] = {**row, **{name: value for name, value in entry.items() if value is not None}}
    return made


def models(written: Mapping[str, object], lock: Mapping[str, Any] | None, problems: Problems) -> Mapping[str, object]:
    """Return redoubt_model_locks, or the lock's models where the inventory lists none; they must be the same."""
    known = _rows(lock, "models")
    if not known:
        return written
    if not written:
        return dict(known)
    for name, entry in written.items():
        row = known.get(name)
        if row is None or not isinstance(entry, Mapping):
            continue
        if _bytes(entry) != _bytes(row):
            why = f"the lock has other files: {_both(entry, row, 'revision')}"
            problems.add(f"redoubt_model_locks.{name}", why, AGAIN)
    return written


def _rows(lock: Mapping[str, Any] | None, kind: str) -> Mapping[str, Mapping[str, Any]]:
    rows = (lock or {}).get(kind)
    return rows if isinstance(rows, Mapping) else {}


def _both(entry: Mapping[str, Any], row: Mapping[str, Any], name: str) -> str:
    return f"{row.get(name)} there, {entry.get(name)} here"


def _bytes(entry: Mapping[str, Any]) -> tuple[object, frozenset[tuple[object, object]]]:
    """Commit and files of a model, in a form that can be compared."""
    files = entry.get("files")
    listed = files if isinstance(files, list | tuple) else ()
    pairs = ((file.get("path"), file.get("sha256")) for file in listed if isinstance(file, Mapping))
    return entry.get("revision"), frozenset(pairs)
