"""Making a lock of what was resolved: images, models, wheels and the project join the packages that were named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locks import folder as files
from locks import project, wheels

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip
from ansible.module_utils.artifacts.locking import HubLock  # isort: skip
from ansible.module_utils.artifacts.sources import parse_address  # isort: skip
from ansible.module_utils.fetch.http import Network  # isort: skip
from ansible.module_utils.gather.archives import lock_archive  # isort: skip
from ansible.module_utils.gather.registry import Registry, docker_logins, lock_reference  # isort: skip
from ansible.module_utils.lock.changes import Change, compare  # isort: skip
from ansible.module_utils.lock.document import checked, sealed  # isort: skip

REGISTRY = "registry"
MODEL_FIELDS = ("revision", "license", "repo", "source", "total_size", "files")
PLACEHOLDER = 2  # digests of fewer different digits are those of the examples


@dataclass(frozen=True)
class Wishes:
    """What the lock shall have.

    platforms: {NAME: {platform, indexes}} as the module package_closure answers; images: redoubt_images, from `source`;
    models: redoubt_model_locks; hub: address of the hub that is asked for newer commits, or empty;
    targets: of Python on control hosts; python_index: where wheels are, see gather.wheels.Pip.
    """

    site: str
    platforms: Mapping[str, Mapping[str, Any]]
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = REGISTRY
    image_platforms: Sequence[str] = ()
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models_source: str = ""
    hub: str = ""
    targets: Sequence[Mapping[str, str]] = ()
    python_index: str = ""


@dataclass(frozen=True)
class Made:
    """A lock, its package lists by platform and path, what differs from the former one, and what is newer."""

    lock: dict[str, Any]
    indexes: dict[str, dict[str, str]]
    changes: list[Change]
    newer: list[str]


def make(wishes: Wishes, root: Path, folder: Path, network: Network | None = None) -> Made:
    """Return the lock of these wishes. Raises Refusal with every problem, OSError."""
    problems: list[str] = []
    registry = Registry(network or Network(), docker_logins())
    images, newer = _images(wishes, registry, problems)
    models = _models(wishes, problems)
    newer += _newer_models(wishes, network or Network())
    platforms = {name: dict(row["platform"]) for name, row in wishes.platforms.items()}
    if problems:
        raise Refusal(problems)
    tree = project.tree_of(root, [folder])
    body = {
        "platforms": platforms,
        "images": images,
        "models": models,
        "python": _python(wishes, root),
        "project": project.row(tree, project.tar(tree)) if tree else {},
        "keys": _keys(platforms),
    }
    former = _former(folder)
    lock = checked(sealed(body, wishes.site, former), str(folder))
    whole = former if former and "platforms" in former else None
    indexes = {name: dict(row["indexes"]) for name, row in wishes.platforms.items()}
    return Made(lock, indexes, compare(whole, lock), newer)


def _python(wishes: Wishes, root: Path) -> dict[str, Any]:
    if not wishes.targets:
        return {"requirements": "", "targets": [], "files": []}
    return wheels.resolve(root / "requirements.txt", wishes.targets, root / ".cache/lock/wheels", wishes.python_index)


def _former(folder: Path) -> dict[str, Any] | None:
    """Return the lock that is there; of a broken one only what counts on, so that it can be made anew."""
    if not (folder / files.HEAD).is_file():
        return None
    try:
        return files.load(folder)
    except Refusal:
        head = files.head(folder)
        serial = head.get("serial")
        return {"serial": serial if isinstance(serial, int) else 0, "digest": ""}


def _images(wishes: Wishes, registry: Registry, problems: list[str]) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    newer: list[str] = []
    for key, wish in sorted(wishes.images.items()):
        try:
            found[key], moved = _image(wishes, wish, registry)
        except Refusal as refusal:
            problems += [f"redoubt_images.{key}: {problem}" for problem in refusal.problems]
            continue
        newer += [f"images: {key} {moved}"] if moved else []
    return found, newer


def _image(wishes: Wishes, wish: Mapping[str, Any], registry: Registry) -> tuple[dict[str, Any], str]:
    stated = [str(wish.get(name) or "").rpartition(":")[2] for name in ("digest", "config_digest")]
    if any(value and len(set(value)) < PLACEHOLDER for value in stated):
        raise Refusal("its digest is a placeholder; take it out, and the lock gets that of the tag as it is now")
    scheme, _, rest = wishes.source.partition("://")
    if scheme == "file":
        if not wish.get("archive"):
            raise Refusal(f"redoubt_sources.images is {wishes.source}, but the image has no archive")
        return lock_archive(Path(parse_address(wishes.source, "redoubt_sources.images")[1]), wish), ""
    mirror = rest if scheme == REGISTRY else ""
    row = lock_reference(registry, wish, wishes.image_platforms, mirror)
    if not wish.get("digest"):
        return row, ""
    try:
        now = lock_reference(registry, {**wish, "digest": "", "config_digest": ""}, wishes.image_platforms, mirror)
    except Refusal:
        return row, ""  # the tag is gone; the digest is what counts
    moved = now["digest"] != row["digest"]
    return row, f"{wish['name']}:{wish['tag']} is {now['digest']} now" if moved else ""


def _models(wishes: Wishes, problems: list[str]) -> dict[str, Any]:
    found = {}
    for name, entry in sorted(wishes.models.items()):
        sums = [str(file.get("sha256") or "") for file in entry.get("files") or ()]
        if any(len(set(value)) < PLACEHOLDER for value in sums):
            problems.append(
                f"redoubt_model_locks.{name}: its sums are placeholders; make it: ./redoubt play weights_lock"
            )
        row = {key: entry[key] for key in MODEL_FIELDS if key in entry}
        found[name] = {**row, "origin": str(entry.get("origin") or entry.get("repo") or wishes.models_source or "site")}
    return found


def _newer_models(wishes: Wishes, network: Network) -> list[str]:
    """Return which models have a newer commit on the hub, or could not be asked for; the locked commit stays."""
    found = []
    for name, entry in sorted(wishes.models.items()):
        if not (wishes.hub and entry.get("repo")):
            continue
        try:
            newest = HubLock(wishes.hub, str(entry["repo"]), network).newest()
        except Refusal as refusal:
            found.append(f"models: {name} was not asked for: {refusal}")
            continue
        if newest != entry.get("revision"):
            found.append(f"models: {name} {entry['repo']} main is {newest} now")
    return found


def _keys(platforms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the keys of all repositories, each once."""
    found: dict[str, str] = {}
    for row in platforms.values():
        for repository in row.get("repositories", ()):
            for fingerprint in repository.get("fingerprints", ()):
                found.setdefault(str(fingerprint).upper(), str(repository["name"]))
    return [{"name": name, "fingerprint": key} for key, name in sorted(found.items())]
