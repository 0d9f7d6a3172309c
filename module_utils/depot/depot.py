# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""A depot as a whole: adding bytes, publishing a lock, what is there. Whatever stops it, what is served is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.artifacts.blobs import Blobs
from ansible.module_utils.artifacts.errors import Refusal, plural
from ansible.module_utils.artifacts.progress import write_json
from ansible.module_utils.lock.parts import Part, parts
from ansible.module_utils.run_lock import PATIENCE, only_run

from .arriving import copy_proved
from .checking import Checker, Fault
from .garbage import collect
from .layout import Layout, is_site, layout
from .records import Records, read_document
from .repository import sign, write_bytes
from .signing import Signer
from .view import build, holds_text, is_whole, point

FOLDERS = ("keys", "locks", "sites", "state", "state/coming", "state/previous", "views")
KEY = "depot.asc"


@dataclass(frozen=True)
class Depot:
    """The depot in a folder; `signer` has the key of its repositories, `patience` is how long it waits for a run."""

    root: Path
    signer: Signer = field(default_factory=Signer)
    patience: float = PATIENCE

    @property
    def blobs(self) -> Blobs:
        """Return the store of bytes."""
        return Blobs(self.root / "blobs", self.root / "state" / "pieces")

    def prepare(self) -> bool:
        """Make the folders; tell whether one was missing. Raises OSError."""
        made = not self.root.is_dir()
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in FOLDERS:
            if not (self.root / name).is_dir():
                (self.root / name).mkdir()
                (self.root / name).chmod(0o700 if name.startswith("state") else 0o755)
                made = True
        return self.blobs.prepare() or made

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other run changes what is published. Raises Busy, OSError."""
        with only_run(self.root / "state" / ".lock", f"the depot {self.root}", self.patience):
            yield

    # Bytes

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether the bytes are there; they were proved when they came. Raises OSError."""
        try:
            return os.lstat(self.blobs.path(sha256)).st_size == size
        except FileNotFoundError:
            return False

    def missing(self, wanted: Iterable[Part]) -> list[Part]:
        """Return the parts whose bytes are not there, each content once. Raises OSError."""
        seen: set[str] = set()
        found = []
        for part in wanted:
            if part.sha256 not in seen and not self.has(part.sha256, part.size):
                found.append(part)
            seen.add(part.sha256)
        return found

    def add_blob(self, source: Path | IO[bytes], sha256: str, size: int, replace: bool = False) -> bool:
        """Copy bytes into the store, hashing on the way; tell whether they were not there yet.

        Needs no lock: any number may add at once. With `replace` also bytes that are there are written anew.
        Raises Refusal for other bytes than these, OSError.
        """
        if not replace and self.has(sha256, size):
            return False
        where = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the stream"))
        descriptor, name = tempfile.mkstemp(prefix=f"{sha256}.", suffix=".new", dir=self.blobs.partial)
        try:
            try:
                if isinstance(source, Path):
                    with open(source, "rb", buffering=0) as stream:
                        copy_proved(stream, descriptor, where, sha256, size)
                else:
                    copy_proved(source, descriptor, where, sha256, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.take_in(Path(name), sha256, size)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return True

    def take_in(self, proved: Path, sha256: str, size: int) -> None:
        """Move a file of `blobs.partial`, proved and synced by the caller, into the store. Raises Refusal, OSError."""
        found = os.lstat(proved).st_size
        if found != size:
            raise Refusal(f"{proved}: expected {size} bytes, found {found}")
        self.blobs.take_in(proved, sha256)

    # Locks

    @property
    def records(self) -> Records:
        """Return which locks are in force, were before, and are on their way."""
        return Records(self.root)

    def lock(self, site: str) -> dict[str, Any] | None:
        """Return the lock in force for a site, or None. Raises Refusal, OSError."""
        return self.records.in_force(site)

    def expect(self, lock: Mapping[str, Any]) -> None:
        """Note that the parts of a lock are being brought: nothing collects them meanwhile. Raises Refusal, OSError."""
        layout(lock)
        self.prepare()
        self.records.begin(lock)

    def publish(self, lock: Mapping[str, Any]) -> bool:
        """Put a lock in force: its view is built beside, then seen by one rename; tell whether anything changed.

        Raises Refusal when bytes are missing or the lock cannot be used, Busy, OSError.
        """
        plan = layout(lock)
        lacking = self.missing(parts(lock))
        if lacking:
            count = plural(len(lacking), "file")
            raise Refusal(
                [f"{self.root}: the depot lacks {count} of the lock of site {plan.site}; gather or import them first:"]
                + [f"{part.kind} {part.name} {part.version}: {part.path} (sha256 {part.sha256})" for part in lacking]
            )
        self.prepare()
        with self.locked():
            self.settle()
            changed = self._ensure_view(plan, lock)
            link, target = self.link(plan.site), self._target(plan)
            if self.lock(plan.site) != lock:
                self.records.remember_serial(plan.site, plan.serial)
                self.records.begin(lock)
                point(link, target)
                self.records.commit(lock)
                changed = True
            else:
                changed = point(link, target) or changed
            changed = self._write_key() or changed
            return self.write_inventory() or changed

    def settle(self) -> list[str]:
        """Finish what a run that died between the switch and the commit had begun; return the sites. Raises OSError."""
        finished = []
        for site, lock in self.records.coming().items():
            link = self.link(site)
            if link.is_symlink() and os.readlink(link) == self._target(layout(lock)):
                if self.lock(site) != lock:
                    finished.append(site)
                self.records.commit(lock)
        return finished

    def sign(self) -> bool:
        """Sign what this key did not sign of all in force; tell whether any was. Raises Refusal, Busy, OSError."""
        changed = False
        with self.locked():
            self.settle()
            for plan in self.plans():
                changed = self._sign(plan) or changed
            return self._write_key() or changed

    def withdraw(self, site: str) -> bool:
        """Take a site out of the depot; its bytes go with the next collection. Raises Refusal, Busy, OSError."""
        with self.locked():
            changed = self.link(site).is_symlink()
            self.link(site).unlink(missing_ok=True)
            changed = self.records.forget(site) or changed
            views = self.root / "views" / site
            if views.is_dir():
                shutil.rmtree(views)
            return self.write_inventory() or changed

    # What is there

    def verify(self, deep: bool, workers: int = 0, tick: Callable[[int], None] = lambda _: None) -> list[Fault]:
        """Return what is wrong; `deep` reads every byte, with so many threads (0: as many as there are cores).

        `tick` gets the number of bytes that were read. Changes nothing. Raises OSError.
        """
        return Checker(self.root, self.blobs, self.signer, tick).faults(deep, workers)

    def set_aside(self, sha256: str) -> bool:
        """Take a damaged blob out of the store, so that it counts as missing; tell whether it was there.

        The views keep what they have until the bytes came again and the lock is published. Raises OSError.
        """
        path = self.blobs.path(sha256)
        if not os.path.lexists(path):
            return False
        os.replace(path, self.blobs.damaged(sha256))
        return True

    def collect_garbage(self, dry: bool = False, without: str | None = None) -> int:
        """Remove what no lock in force, no former one and none on its way refers to; return the bytes gained.

        With `dry` nothing is removed, and the site `without` is taken for withdrawn. Raises Refusal, Busy, OSError.
        """
        with self.locked():
            self.settle()
            gone = without if dry else None
            kept = [lock for site, lock in self.records.coming().items() if site != gone]
            for site in self.records.sites():
                if site == gone:
                    continue
                kept += [lock for lock in (self.lock(site), self.records.previous(site)) if lock is not None]
            freed = collect(self.root, self.blobs, kept, dry)
            if not dry:
                self.write_inventory()
            return freed

    def plans(self) -> list[Layout]:
        """Return what the view of each site in force should hold. Raises Refusal, OSError."""
        locks = [self.lock(site) for site in self.records.sites()]
        return [layout(lock) for lock in locks if lock is not None]

    def inventory(self) -> dict[str, Any]:
        """Return ``{schema, sites: {site: {serial, digest}}, blobs: {sha256: bytes}}`` as it is now. Raises OSError."""
        locks = {site: self.lock(site) for site in self.records.sites()}
        sites = {site: {"serial": lock["serial"], "digest": lock["digest"]} for site, lock in locks.items() if lock}
        blobs = {item.name: item.stat(follow_symlinks=False).st_size for item in self.blobs.every()}
        return {"schema": 1, "sites": sites, "blobs": dict(sorted(blobs.items()))}

    def write_inventory(self) -> bool:
        """Write the inventory to where other sites read it; tell whether it changed. Raises Refusal, OSError."""
        document, path = self.inventory(), self.root / "inventory.json"
        if read_document(path) == document:
            return False
        write_json(path, document, mode=0o644)
        return True

    def view(self, plan: Layout) -> Path:
        """Return where the view of a lock is, or would be."""
        return self.root / "views" / plan.site / plan.short

    def link(self, site: str) -> Path:
        """Return the symbolic link by which a site's view is served. Raises Refusal for what is no site's name."""
        if not is_site(site):
            raise Refusal(f"{site!r} is not the name of a site")
        return self.root / "sites" / site

    def _target(self, plan: Layout) -> str:
        return f"../views/{plan.site}/{plan.short}"

    def _ensure_view(self, plan: Layout, lock: Mapping[str, Any]) -> bool:
        view, link = self.view(plan), self.link(plan.site)
        # A view of earlier times has an earlier date, and APT keeps what is dated later: it is made anew.
        if link.is_symlink() and os.readlink(link) == self._target(plan) and is_whole(self.blobs, plan, view):
            return self._sign(plan)
        self.blobs.sync({sha256 for sha256, _ in plan.links.values()})
        build(self.blobs, plan, lock, view, self.signer, link)
        return True

    def _sign(self, plan: Layout) -> bool:
        view = self.view(plan)
        if not self.signer.ready:
            return False
        return True in [sign(view / base, kind, self.signer) for base, kind in plan.repositories.items()]

    def _write_key(self) -> bool:
        if not self.signer.ready:
            return False
        return self.show(KEY, self.signer.public())

    def show(self, name: str, data: bytes) -> bool:
        """Put something public where hosts are given it from; tell whether it was not there. Raises OSError."""
        path = self.root / "keys" / name
        if holds_text(path, data):
            return False
        write_bytes(path, data)
        return True
