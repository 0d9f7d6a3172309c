# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Proving a depot: every blob, every view against its lock, every signature; what is too much is named as well."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.blobs import Blobs
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import SHA256
from ansible.module_utils.artifacts.survey import walk
from ansible.module_utils.artifacts.transfer import hash_file

from .layout import Layout, layout
from .records import Records, read_document
from .repository import METADATA, Index, by_hash, is_signed, listed, read_index
from .signing import Signer
from .view import holds_text, is_linked

MOST_WORKERS = 16


@dataclass(frozen=True)
class Fault:
    """What is wrong: ``missing``, ``damaged``, ``foreign`` (nobody listed it), ``unsigned``, or ``stale``.

    The path is relative to the depot; sha256 is that of the blob to bring again, or ''.
    """

    kind: str
    path: str
    text: str
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True)
class Checker:
    """Looks at a depot and changes nothing. `tick` is called with the number of bytes that were read."""

    root: Path
    blobs: Blobs
    signer: Signer
    tick: Callable[[int], None]

    def faults(self, deep: bool, workers: int) -> list[Fault]:
        """Return what is wrong, by path; `deep` reads every byte, with so many threads (0: as many as cores)."""
        records = Records(self.root)
        found = list(self._blob_faults(self._sizes(records), deep, workers))
        for site in records.sites():
            try:
                lock = records.in_force(site)
                if lock is not None:
                    found += self._site_faults(lock, layout(lock))
            except Refusal as refusal:
                found.append(Fault("damaged", f"locks/{site}.json", str(refusal)))
        for path in sorted((self.root / "sites").glob("*")):
            if path.name not in records.sites():
                found.append(Fault("foreign", f"sites/{path.name}", "is served, and no lock is in force for it"))
        return sorted(found, key=lambda fault: (fault.path, fault.kind))

    def _sizes(self, records: Records) -> dict[str, int]:
        """Return {sha256: size} of what the locks in force say; a lock that cannot be read is named elsewhere."""
        known: dict[str, int] = {}
        for site in records.sites():
            try:
                lock = records.in_force(site)
                known.update(layout(lock).links.values() if lock is not None else ())
            except Refusal:
                continue
        return known

    def _blob_faults(self, sizes: Mapping[str, int], deep: bool, workers: int) -> Iterator[Fault]:
        here: dict[str, os.stat_result] = {}
        for item in self.blobs.every():
            where = self._relative(Path(item.path))
            if not SHA256.fullmatch(item.name) or Path(item.path) != self.blobs.path(item.name):
                yield Fault("foreign", where, "is no blob: its name or its folder is not that of its SHA-256")
            elif not item.is_file(follow_symlinks=False):
                yield Fault("damaged", where, "is not a regular file", item.name)
            else:
                here[item.name] = item.stat(follow_symlinks=False)
        for sha256, size in sorted(sizes.items()):
            path = self._relative(self.blobs.path(sha256))
            if sha256 not in here:
                yield Fault("missing", path, f"a lock in force needs its {size} bytes", sha256)
            elif here[sha256].st_size != size:
                yield Fault("damaged", path, f"expected {size} bytes, found {here.pop(sha256).st_size}", sha256)
        if not deep:
            return
        with ThreadPoolExecutor(workers or min(MOST_WORKERS, os.cpu_count() or 1)) as pool:
            for fault in pool.map(self._read_blob, sorted(here, key=lambda name: -here[name].st_size)):
                if fault is not None:
                    yield fault

    def _read_blob(self, sha256: str) -> Fault | None:
        path = self.blobs.path(sha256)
        try:
            digest, _ = hash_file(path, self.tick)
        except OSError as error:
            return Fault("damaged", self._relative(path), error.strerror or str(error), sha256)
        if digest == sha256:
            return None
        return Fault("damaged", self._relative(path), f"its bytes have the sha256 {digest}", sha256)

    def _site_faults(self, lock: Mapping[str, Any], plan: Layout) -> Iterator[Fault]:
        link = self.root / "sites" / plan.site
        view = self.root / "views" / plan.site / plan.short
        if not link.is_symlink() or os.readlink(link) != f"../views/{plan.site}/{plan.short}":
            yield Fault("stale", f"sites/{plan.site}", "does not lead to the view of the lock in force")
        if not view.is_dir():
            yield Fault("missing", self._relative(view), "the view is not there; publish the lock again")
            return
        for path, (sha256, size) in plan.links.items():
            if self.blobs.path(sha256).is_file() and not is_linked(self.blobs, view / path, sha256, size):
                yield Fault("damaged", self._relative(view / path), "is not the file of the lock; publish it again")
        for path, text in plan.texts.items():
            if not holds_text(view / path, text):
                yield Fault("damaged", self._relative(view / path), "is not what the lock says; publish it again")
        made: set[str] = set()
        for base, kind in plan.repositories.items():
            if kind == "rpm":
                made |= {f"{base}/{METADATA}.asc"}
            else:
                paths = [item["path"] for item in lock["platforms"][base.rpartition("/")[2]]["indexes"]]
                made |= {f"{base}/Release", f"{base}/InRelease"}
                yield from self._release_faults(view / base, paths)
            if self.signer.ready and not is_signed(view / base, kind, self.signer):
                yield Fault("unsigned", self._relative(view / base), "has no good signature of this depot's key")
        yield from self._foreign(view, {*plan.links, *plan.texts, *made})
        document = read_document(self.root / "inventory.json")
        if document is None or document.get("sites", {}).get(plan.site, {}).get("digest") != lock["digest"]:
            yield Fault("stale", "inventory.json", f"does not name the lock in force for {plan.site}; publish it again")

    def _release_faults(self, folder: Path, paths: list[str]) -> Iterator[Fault]:
        try:
            indexes = [read_index(folder, path) for path in paths]
            release = (folder / "Release").read_bytes()
        except OSError as error:
            yield Fault(
                "missing", self._relative(folder), f"{error.filename}: {error.strerror}; publish the lock again"
            )
            return
        if listed(release) != [(index.sha256, index.size, index.path) for index in indexes]:
            yield Fault("damaged", self._relative(folder / "Release"), "does not list the packages of the lock")
        yield from self._by_hash_faults(folder, indexes)

    def _by_hash_faults(self, folder: Path, indexes: list[Index]) -> Iterator[Fault]:
        for name in sorted({name for index in indexes for name in by_hash(index)}):
            if not (folder / name).is_file():
                yield Fault("missing", self._relative(folder / name), "is not there; publish the lock again")
        for algorithm in ("SHA256", "SHA512"):
            for path in sorted((folder / "by-hash" / algorithm).glob("*")):
                index = read_index(folder, str(path.relative_to(folder)))
                if path.name not in (index.sha256, index.sha512):
                    yield Fault("damaged", self._relative(path), "has other bytes than its name says")

    def _foreign(self, view: Path, known: set[str]) -> Iterator[Fault]:
        for path, status in walk(view).items():
            if stat.S_ISDIR(status.st_mode) or path in known or "/by-hash/SHA" in path:
                continue
            yield Fault("foreign", self._relative(view / path), "is in the view, and the lock does not list it")

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.root))
