"""Comparing a folder of model files with its manifest: by stamp when nothing moved, by SHA-256 when in doubt."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .manifest import FileEntry, Model, parents
from .progress import Progress, write_json
from .transfer import byte_problem, hash_file

FILE_MODE = 0o444
FOLDER_MODE = 0o555


@dataclass(frozen=True)
class FileStamp:
    """What a file looked like right after its bytes were proved; ctime also moves when someone puts mtime back."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str

    @classmethod
    def of(cls, path: Path, sha256: str) -> FileStamp:
        """Stamp a file now. Raises OSError."""
        found = os.lstat(path)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, sha256)

    def holds(self, found: os.stat_result, entry: FileEntry) -> bool:
        """Tell whether the file was not touched since and is the one that the manifest wants."""
        return (
            self.sha256 == entry.sha256
            and self.size == found.st_size == entry.size
            and self.mtime_ns == found.st_mtime_ns
            and self.ctime_ns == found.st_ctime_ns
            and self.inode == found.st_ino
        )


@dataclass
class Stamp:
    """The stamps of one published revision, and when a run last chose this revision."""

    chosen: float = 0.0
    files: dict[str, FileStamp] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Stamp:
        """Read a stamp; one that is missing or unreadable counts as empty, so that everything is hashed again."""
        try:
            document: dict[str, Any] = json.loads(path.read_text())
            files = {name: FileStamp(*values) for name, values in document["files"].items()}
            return cls(float(document["chosen"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, path: Path) -> None:
        """Write the stamp. Raises OSError."""
        files = {
            name: [item.size, item.mtime_ns, item.ctime_ns, item.inode, item.sha256]
            for name, item in self.files.items()
        }
        write_json(path, {"schema": 1, "chosen": self.chosen, "files": files})


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
    """What a folder holds: files proved right, faults, paths that nobody listed, paths with a wrong mode."""

    exists: bool = True
    good: dict[str, FileStamp] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    modes: dict[str, int] = field(default_factory=dict)
    hashed_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether the folder is exactly what the manifest says."""
        return self.exists and not self.faults and not self.unlisted


def survey(
    root: Path,
    model: Model,
    stamps: Mapping[str, FileStamp],
    pool: Executor,
    progress: Progress,
    deep: bool = False,
) -> Survey:
    """Compare a folder with a model's manifest; ``deep`` hashes every file, stamped or not. Raises OSError."""
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
        known = stamps.get(entry.path)
        if not deep and known is not None and known.holds(status, entry):
            result.good[entry.path] = known
        else:
            doubtful.append(entry)
    listed = {entry.path for entry in model.files}
    for path, status in found.items():
        if path in wanted_folders and stat.S_ISDIR(status.st_mode):
            if stat.S_IMODE(status.st_mode) != FOLDER_MODE:
                result.modes[path] = FOLDER_MODE
        elif path not in listed and not any(parent in result.unlisted for parent in parents(path)):
            result.unlisted.append(path)
    _hash_doubtful(root, model, doubtful, pool, progress, result)
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
    root: Path, model: Model, doubtful: list[FileEntry], pool: Executor, progress: Progress, result: Survey
) -> None:
    def check(entry: FileEntry) -> Fault | FileStamp:
        path = root / entry.path
        before = FileStamp.of(path, entry.sha256)
        try:
            digest, size = hash_file(path, lambda count: progress.add(count, f"{model.name}/{entry.path}"))
        except OSError as error:
            return Fault(entry.path, "unreadable", f"sha256 {entry.sha256}", f"a read error: {error.strerror or error}")
        if byte_problem(entry, size, digest):
            return Fault(entry.path, "digest", f"sha256 {entry.sha256}", f"sha256 {digest}")
        return before

    for entry, outcome in zip(doubtful, pool.map(check, doubtful)):
        result.hashed_bytes += entry.size
        if isinstance(outcome, Fault):
            result.faults.append(outcome)
        else:
            result.good[entry.path] = outcome


def walk(root: Path) -> dict[str, os.stat_result]:
    """Return everything below a folder with its status, links not followed; the folder itself is ''. Raises OSError."""
    found = {"": os.lstat(root)}
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for item in entries:
                path = f"{folder}/{item.name}" if folder else item.name
                found[path] = os.lstat(item.path)
                if stat.S_ISDIR(found[path].st_mode):
                    pending.append(path)
    return dict(sorted(found.items()))
