# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Bringing all that a depot lacks of a lock: every byte is proved, and what came stays when one fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.sources import parse_address
from ansible.module_utils.closure.debs import fetch as fetch_debs
from ansible.module_utils.closure.debs import proved
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.engine import fetch
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.job import Job
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.sources import Item, Source
from ansible.module_utils.lock.parts import Part, parts

from .archives import opened, parts_of
from .registry import BlobSource, Registry, place_of
from .wheels import Pip, download

Tick = Callable[[int, str], None]
REGISTRY = "registry"


@dataclass(frozen=True)
class Origins:
    """Where the connected side has what: see the module `gather`. `texts` are what the lock's own folder holds."""

    images: str = REGISTRY
    models: Sequence[Mapping[str, Any] | str] = ()
    project: Path | None = None
    python: str = ""
    python_index: str = ""
    indexes: Mapping[str, str] = field(default_factory=dict)
    packages: Path | None = None
    network: Network = field(default_factory=Network)
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: int = 3600


class Gathering:
    """One run: `depot` gets the parts of `lock`."""

    def __init__(self, depot: Depot, lock: Mapping[str, Any], origins: Origins, tick: Tick, limits: Limits) -> None:
        self._depot, self._lock, self._origins = depot, lock, origins
        self._tick, self._limits = tick, limits
        self._guard = threading.Lock()
        self.brought: list[Part] = []

    def run(self, missing: Sequence[Part]) -> list[str]:
        """Bring the missing parts; return what is wrong, in words. Raises OSError."""
        self._depot.expect(self._lock)
        work = {
            "package": self._packages,
            "image": self._images,
            "model": self._models,
            "python": self._python,
            "project": self._project,
        }
        by_kind: dict[str, list[Part]] = {}
        for part in missing:
            by_kind.setdefault(part.kind, []).append(part)
        with ThreadPoolExecutor(max(len(by_kind), 1)) as pool:
            done = [pool.submit(_told, work[kind], rows) for kind, rows in by_kind.items()]
            problems = [problem for future in done for problem in future.result()]
        self._depot.blobs.sync({part.sha256 for part in self.brought})
        return problems

    def _add(self, part: Part, source: Any) -> None:
        self._depot.add_blob(source, part.sha256, part.size)
        self._came(part)

    def _came(self, part: Part) -> None:
        with self._guard:
            self.brought.append(part)
        self._tick(part.size, f"{part.kind} {part.name}")

    def _staging(self, name: str) -> Path:
        folder: Path = self._depot.root / "state" / "gather" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    # Packages

    def _packages(self, missing: Sequence[Part]) -> list[str]:
        by_platform: dict[str, list[Part]] = {}
        for part in missing:
            by_platform.setdefault(part.platform, []).append(part)
        problems: list[str] = []
        for platform, rows in sorted(by_platform.items()):
            problems += _told(self._platform, rows, platform)
        return problems

    def _platform(self, missing: Sequence[Part], platform: str) -> list[str]:
        wanted = {part.sha256: part for part in missing}
        row = self._lock["platforms"][platform]
        for item in row["indexes"]:
            part = wanted.pop(item["sha256"], None)
            if part is not None:
                self._add(part, _Bytes(self._index(platform, item)))
        rows = [
            item
            for item in row["packages"]
            if item["sha256"] in wanted and not self._at_hand(wanted[item["sha256"]], item, platform)
        ]
        folder = self._staging(platform)
        problems: list[str] = []
        # A few at a time: what came is in the depot when the next one fails, and the folder stays small.
        for start in range(0, len(rows), 50):
            chosen = rows[start : start + 50]
            problems += _told(lambda some: fetch_debs(some, folder, self._origins.timeout, check=False) and [], chosen)
            for item in chosen:
                path = folder / item["path"]
                if path.is_file():
                    self._add(wanted[item["sha256"]], path)
                    path.unlink()
        return problems

    def _at_hand(self, part: Part, item: Mapping[str, Any], platform: str) -> bool:
        """Whether the file lies where the lock was made, which fetches the packages of DNF; it is added then."""
        path = self._origins.packages / platform / item["path"] if self._origins.packages else None
        if path is None or not proved(path, item):
            return False
        self._add(part, path)
        return True

    def _index(self, platform: str, item: Mapping[str, Any]) -> bytes:
        key = f"{platform}/{item['path']}"
        if key not in self._origins.indexes:
            raise Refusal(
                f"lock/platforms/{platform}: the list {item['path']} is missing; take it from git, or lock again"
            )
        return self._origins.indexes[key].encode()

    # Images

    def _images(self, missing: Sequence[Part]) -> list[str]:
        by_image: dict[str, list[Part]] = {}
        for part in missing:
            by_image.setdefault(part.name, []).append(part)
        bring = self._archive if "://" in self._origins.images and not self._mirror else self._registry
        problems: list[str] = []
        for key, rows in sorted(by_image.items()):
            problems += [f"image {key}: {problem}" for problem in _told(bring, rows, self._lock["images"][key])]
        return problems

    @property
    def _mirror(self) -> str:
        scheme, _, rest = self._origins.images.partition("://")
        return rest if scheme == REGISTRY else ""

    def _archive(self, missing: Sequence[Part], row: Mapping[str, Any]) -> list[str]:
        scheme, folder = parse_address(self._origins.images, "redoubt_sources.images")
        if scheme != "file":
            raise Refusal(f"{self._origins.images}: archives are read from a folder here (file:///…), or use registry")
        if not row.get("archive"):
            raise Refusal("the lock has it from a registry, not from an archive")
        wanted = {part.sha256: part for part in missing}
        with opened(Path(folder), row["archive"]) as archive:
            for sha256, _size, stream in parts_of(archive, row, set(wanted)):
                self._add(wanted.pop(sha256), stream())
        return [f"{row['archive']} does not hold {part.path}" for part in wanted.values()]

    def _registry(self, missing: Sequence[Part], row: Mapping[str, Any]) -> list[str]:
        if row.get("archive"):
            raise Refusal(
                f"the lock has it from the archive {row['archive']}; say where that is: "
                "redoubt_sources.images: file:///FOLDER"
            )
        place = place_of(row["name"], self._mirror)
        registry = Registry(self._origins.network, self._origins.logins)
        # The first question tells which token the blobs need.
        registry.document(place, row["digest"])
        blobs = []
        for part in missing:
            if "/manifests/" in part.path:
                self._add(part, _Bytes(registry.document(place, f"sha256:{part.sha256}")[0]))
            else:
                blobs.append((part, Item(part.name, "", f"sha256:{part.sha256}", part.size, part.sha256)))
        return self._fetch(blobs, [BlobSource(registry, place)])

    # Models

    def _models(self, missing: Sequence[Part]) -> list[str]:
        listed = self._origins.models
        if not listed:
            raise Refusal("models are missing, and nobody said where they are: set gather_models")
        sources = make_sources(listed, "gather_models", self._origins.network)
        jobs = []
        for part in missing:
            row = self._lock["models"][part.name]
            # The view has MODEL/REVISION/PATH, the sources have the path alone.
            path = part.path.split("/", 3)[3]
            jobs.append((part, Item(part.name, part.version, path, part.size, part.sha256, row.get("repo") or "")))
        return self._fetch(jobs, sources)

    def _fetch(self, wanted: Sequence[tuple[Part, Item]], sources: Sequence[Source]) -> list[str]:
        known = {item.sha256: part for part, item in wanted}
        jobs = [Job(item, self._depot.blobs.partial / item.sha256, sources) for _, item in wanted]
        problems: list[str] = []

        def ended(job: Job) -> None:
            part = known[job.item.sha256]
            if job.problems:
                problems.append(f"{part.name}: {'; then '.join(job.problems)}")
                return
            if job.small:
                _sync(job.path)
            self._depot.take_in(job.path, part.sha256, part.size)
            job.journal_path.unlink(missing_ok=True)
            self._came(part)

        fetch(jobs, self._limits, lambda _count, _label: None, ended)
        return problems

    # Wheels and the project

    def _python(self, missing: Sequence[Part]) -> list[str]:
        wanted = {part.sha256: part for part in missing}
        rows = [item for item in self._lock["python"]["files"] if item["sha256"] in wanted]
        folder = self._staging("python")
        how = Pip(self._origins.python, self._origins.python_index, self._origins.timeout)
        problems = download(rows, self._lock["python"]["targets"], folder, how)
        for item in rows:
            path = folder / item["file"]
            if path.is_file():
                self._add(wanted[item["sha256"]], path)
                path.unlink()
        return problems

    def _project(self, missing: Sequence[Part]) -> list[str]:
        path = self._origins.project
        if path is None:
            raise Refusal("the project's own files are missing, and nobody made them: run this from a git checkout")
        for part in missing:
            self._add(part, path)
        return []


def _told(work: Callable[..., list[str]], *arguments: Any) -> list[str]:
    """Do it; a refusal is what is wrong, so that the others are brought all the same."""
    try:
        return work(*arguments) or []
    except Refusal as refusal:
        return list(refusal.problems)


class _Bytes:
    """Bytes that are read like a file."""

    name = "the lock"

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> bytes:
        """Return the next bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lacking(depot: Depot, lock: Mapping[str, Any]) -> list[Part]:
    """Return what a depot lacks of a lock. Raises OSError."""
    found: list[Part] = depot.missing(parts(lock))
    return found
