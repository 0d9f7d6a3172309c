"""Comparing a folder of model files with its manifest: by stamp when nothing moved, by SHA-256 when in doubt."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.fetch.journal import damaged_ranges

from .blobs import FILE_MODE
from .ledger import Ledger, Proof
from .manifest import FileEntry, Model, parents
from .progress import Progress, write_json
from .reading import Reading
from .transfer import byte_problem, hash_file

FOLDER_MODE = 0o555
MOST_RANGES = 3


@dataclass
class Stamp:
    """What is known of one published revision: when a run last chose it, its commit, what its files' headers say.

    ``legacy`` holds the proofs of the first version's stamps, by path: {path: (inode, Proof)}.
    """

    chosen: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    revision: str = ""
    legacy: dict[str, tuple[int, Proof]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Stamp:
        """Read a stamp; one that is missing or unreadable counts as empty."""
        try:
            document: dict[str, Any] = json.loads(path.read_text())
            legacy = {
                name: (int(inode), Proof(sha256, size, mtime, ctime))
                for name, (size, mtime, ctime, inode, sha256) in document.get("files", {}).items()
            }
            facts, revision = dict(document.get("facts", {})), str(document.get("revision", ""))
            return cls(float(document["chosen"]), facts, revision, legacy)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, path: Path) -> None:
        """Write the stamp. Raises OSError."""
        write_json(path, {"schema": 2, "chosen": self.chosen, "facts": self.facts, "revision": self.revision})

    def known(self, path: str, found: os.stat_result) -> str | None:
        """Return the SHA-256 that the first version proved, when nothing touched the file since."""
        inode, proof = self.legacy.get(path, (None, None))
        return proof.sha256 if proof is not None and inode == found.st_ino and proof.holds(found) else None


@dataclass(frozen=True)
class Fault:
    """One thing in a folder that is not as the manifest says."""

    path: str
    kind: str
    expected: str
    found: str

    def text(self, root: Path) -> str:
        """Return the fault for the operator."""
        return f"{root / self.path}: expected {self.expected}, found {self.found}"


@dataclass
class Survey:
    """What a folder holds: files proved right, those of them without a blob, faults, unlisted paths, wrong modes.

    `wrong` has the inodes of files whose bytes were read and are not right, or could not be read; `read` has all that
    were read.
    """

    exists: bool = True
    good: set[str] = field(default_factory=set)
    single: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    modes: dict[str, int] = field(default_factory=dict)
    wrong: set[int] = field(default_factory=set)
    read: list[Reading] = field(default_factory=list)
    hashed_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether the folder is exactly what the manifest says."""
        return self.exists and not self.faults and not self.unlisted


def survey(
    root: Path,
    model: Model,
    ledger: Ledger,
    stamp: Stamp,
    pool: Executor,
    progress: Progress,
    deep: bool = False,
    pieces_of: Callable[[str], Path] | None = None,
) -> Survey:
    """Compare a folder with a model's manifest; ``deep`` hashes every file, proved before or not. Raises OSError.

    What is proved on the way is noted in the ledger. With ``pieces_of``, which finds the CRC-32s of a digest's pieces,
    faults say which part of a file is damaged.
    """
    result = Survey(exists=root.is_dir() and not root.is_symlink())
    if not result.exists:
        return result
    found = walk(root)
    doubtful: list[FileEntry] = []
    wanted_folders = {"", *(folder for entry in model.files for folder in parents(entry.path))}
    for entry in model.files:
        status = found.get(entry.path)
        fault = _fault_by_status(entry, status)
        if fault or status is None:
            result.faults.append(fault or Fault(entry.path, "missing", "the file", "nothing"))
            continue
        if stat.S_IMODE(status.st_mode) != FILE_MODE:
            result.modes[entry.path] = FILE_MODE
        known = ledger.digest(status)
        if known is None and not deep and stamp.known(entry.path, status) == entry.sha256:
            known = entry.sha256
            ledger.note(status, known)
        if not deep and known == entry.sha256:
            result.good.add(entry.path)
        else:
            doubtful.append(entry)
        if status.st_nlink == 1:
            result.single.add(entry.path)
    listed = {entry.path for entry in model.files}
    for path, status in found.items():
        if path in wanted_folders and stat.S_ISDIR(status.st_mode):
            if stat.S_IMODE(status.st_mode) != FOLDER_MODE:
                result.modes[path] = FOLDER_MODE
        elif path not in listed and not any(parent in result.unlisted for parent in parents(path)):
            result.unlisted.append(path)
    for before, sha256 in _hash_doubtful(root, model, doubtful, pool, progress, result, pieces_of):
        ledger.note(before, sha256)
    return result


def _fault_by_status(entry: FileEntry, status: os.stat_result | None) -> Fault | None:
    if status is None:
        return Fault(entry.path, "missing", f"{entry.size} bytes", "nothing")
    if stat.S_ISLNK(status.st_mode):
        return Fault(entry.path, "kind", "a regular file", "a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        return Fault(entry.path, "kind", "a regular file", "something else")
    if status.st_size != entry.size:
        return Fault(entry.path, "size", f"{entry.size} bytes", f"{status.st_size} bytes")
    return None


def _hash_doubtful(
    root: Path,
    model: Model,
    doubtful: list[FileEntry],
    pool: Executor,
    progress: Progress,
    result: Survey,
    pieces_of: Callable[[str], Path] | None,
) -> Iterator[tuple[os.stat_result, str]]:
    """Hash files; yield what each was before, and its digest."""

    def check(entry: FileEntry) -> Fault | os.stat_result:
        path = root / entry.path
        before = os.lstat(path)
        try:
            digest, size = hash_file(path, lambda count: progress.add(count, f"{model.name}/{entry.path}"))
        except OSError as error:
            result.wrong.add(before.st_ino)
            result.read.append(Reading(path, before, entry.sha256, good=False))
            return Fault(entry.path, "unreadable", f"sha256 {entry.sha256}", f"a read error: {error.strerror or error}")
        good = byte_problem(entry, size, digest) is None
        result.read.append(Reading(path, before, entry.sha256, good))
        if not good:
            result.wrong.add(before.st_ino)
            where = damage(path, entry.sha256, entry.size, pieces_of)
            return Fault(entry.path, "digest", f"sha256 {entry.sha256}", f"sha256 {digest}{where}")
        return before

    for entry, outcome in zip(doubtful, pool.map(check, doubtful)):
        result.hashed_bytes += entry.size
        if isinstance(outcome, Fault):
            result.faults.append(outcome)
        else:
            result.good.add(entry.path)
            yield outcome, entry.sha256


def damage(path: Path, sha256: str, size: int, pieces_of: Callable[[str], Path] | None) -> str:
    """Say which part of a file is damaged, if its pieces are known."""
    if pieces_of is None:
        return ""
    try:
        ranges = damaged_ranges(path, pieces_of(sha256), size)
    except OSError:
        return ""
    shown = ", ".join(f"{start}-{stop - 1}" for start, stop in ranges[:MOST_RANGES])
    more = f" and {len(ranges) - MOST_RANGES} more parts" if len(ranges) > MOST_RANGES else ""
    return f" (damaged within bytes {shown}{more})" if ranges else ""


def walk(root: Path) -> dict[str, os.stat_result]:
    """Return everything below a folder with its status, links not followed; the folder itself is ''. Raises OSError."""
    found = {"": os.lstat(root)}
    pending = [""] if stat.S_ISDIR(found[""].st_mode) else []
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for item in entries:
                path = f"{folder}/{item.name}" if folder else item.name
                found[path] = os.lstat(item.path)
                if stat.S_ISDIR(found[path].st_mode):
                    pending.append(path)
    return dict(sorted(found.items()))
