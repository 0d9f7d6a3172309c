# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What differs between two locks, artefact by artefact, in words that an operator reads before committing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Versions = Mapping[str, "tuple[str, str]"]


@dataclass(frozen=True)
class Change:
    """One artefact that differs: what it is, its version before and after ('' where it was not there, or is gone).

    ``section`` is the part of the lock, such as ``platforms.debian-13-amd64`` or ``images``.
    """

    section: str
    name: str
    before: str
    after: str

    @property
    def text(self) -> str:
        """Return the change as one line: '+' new, '-' gone, '~' another."""
        if not self.before:
            return f"+ {self.section}: {self.name} {self.after}"
        if not self.after:
            return f"- {self.section}: {self.name} {self.before}"
        return f"~ {self.section}: {self.name} {self.before} -> {self.after}"


def compare(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[Change]:
    """Return every artefact that differs, by section and name. A site's first lock is compared with nothing."""
    old, new = _sections(before or {}), _sections(after)
    found: list[Change] = []
    for section in sorted(old.keys() | new.keys()):
        found += _section(section, old.get(section, {}), new.get(section, {}))
    return found


def _section(section: str, old: Versions, new: Versions) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        (was, was_bytes), (now, now_bytes) = old.get(name, ("", "")), new.get(name, ("", ""))
        if (was, was_bytes) == (now, now_bytes):
            continue
        if was == now:
            # The version tells nothing: a rebuilt package, a tag that was moved.
            was, now = f"{was} ({was_bytes[:12]})", f"{now} ({now_bytes[:12]})"
        yield Change(section, name, was, now)


def _sections(lock: Mapping[str, Any]) -> dict[str, Versions]:
    """Everything in a lock as {section: {name: (version, what stands for its bytes)}}."""
    found: dict[str, Versions] = {}
    for platform, row in (lock.get("platforms") or {}).items():
        found[f"platforms.{platform}"] = {
            item["name"]: (item["version"], item["sha256"]) for item in row.get("packages", ())
        }
        repositories = row.get("repositories", ())
        found[f"platforms.{platform}.repositories"] = {
            item["name"]: (f"{item['uri']} {item['suite']}", " ".join(map(str, item.get("fingerprints", ()))))
            for item in repositories
        }
        found[f"platforms.{platform}.wishes"] = {
            role: (" ".join(names), "") for role, names in (row.get("wishes") or {}).items()
        }
    found["images"] = {
        key: (f"{row['name']}:{row['tag']}", row["digest"].rpartition(":")[2])
        for key, row in (lock.get("images") or {}).items()
    }
    found["models"] = {
        name: (row["revision"][:12], " ".join(f"{item['path']} {item['sha256']}" for item in row["files"]))
        for name, row in (lock.get("models") or {}).items()
    }
    wheels = (lock.get("python") or {}).get("files", ())
    found["python"] = {item["file"]: (item["version"], item["sha256"]) for item in wheels}
    project = lock.get("project") or {}
    found["project"] = {"redoubt": (project["version"], project["sha256"])} if project else {}
    found["keys"] = {item["fingerprint"]: (item["name"], "") for item in lock.get("keys") or ()}
    return found


def lines(changes: list[Change], most: int = 200) -> list[str]:
    """Return the changes as text, the first ``most`` of them, and how many there are of each kind."""
    added = sum(not change.before for change in changes)
    gone = sum(not change.after for change in changes)
    head = f"{added} new, {gone} gone, {len(changes) - added - gone} other"
    rest = [f"… and {len(changes) - most} more"] if len(changes) > most else []
    return [head, *(change.text for change in changes[:most]), *rest] if changes else ["nothing differs"]
