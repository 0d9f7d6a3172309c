# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Desired files on a host: compare, stage, swap, put back. Standard library only, Python 3.9+."""

from __future__ import annotations

import base64
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DesiredFile:
    """One file as it shall be. `content` is text; `secret` keeps it out of diffs."""

    path: str
    content: str
    mode: int
    owner: str
    group: str
    secret: bool = False

    @property
    def data(self) -> bytes:
        """The content as bytes (UTF-8)."""
        return self.content.encode()


@dataclass(frozen=True)
class DesiredDirectory:
    """One directory as it shall be."""

    path: str
    mode: int
    owner: str
    group: str


@dataclass
class Desired:
    """A whole set: directories, files, links and paths that shall not exist."""

    directories: list[DesiredDirectory] = field(default_factory=list)
    files: list[DesiredFile] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def digest(self, extra: list[Any]) -> str:
        """SHA-256 (hex) over everything that the running service depends on, `extra` included."""
        rows: list[Any] = [[f.path, hashlib.sha256(f.data).hexdigest(), f.mode, f.owner, f.group] for f in self.files]
        document = [sorted(rows), sorted(self.links.items()), sorted(self.absent), extra]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """What stood at a path: `kind` is file, link or none."""

    path: str
    kind: str
    data: bytes = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def uid_of(owner: str) -> int:
    """Numeric user id of a name or number. Raises KeyError when there is no such user."""
    return int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid


def gid_of(group: str) -> int:
    """Numeric group id of a name or number. Raises KeyError when there is no such group."""
    return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid


def snapshot(path: str) -> Snapshot:
    """Read what stands at `path` now (a directory counts as an error: OSError)."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Snapshot(path, "none")
    if stat.S_ISLNK(info.st_mode):
        return Snapshot(path, "link", target=os.readlink(path), uid=info.st_uid, gid=info.st_gid)
    data = Path(path).read_bytes()
    return Snapshot(path, "file", data, "", stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)


def _same_owner(uid: int, gid: int, owner: str, group: str, tolerant: bool) -> bool:
    try:
        return uid == uid_of(owner) and gid == gid_of(group)
    except KeyError:
        # In check mode on an empty host the user is made by an earlier task that did not really run.
        if tolerant:
            return False
        raise


def differing_files(desired: Desired, tolerant: bool) -> list[str]:
    """Paths of files, links and unwanted paths that are not as desired."""
    paths = []
    for item in desired.files:
        now = snapshot(item.path)
        same = now.kind == "file" and now.data == item.data and now.mode == item.mode
        if not (same and _same_owner(now.uid, now.gid, item.owner, item.group, tolerant)):
            paths.append(item.path)
    for path, target in desired.links.items():
        now = snapshot(path)
        if now.kind != "link" or now.target != target:
            paths.append(path)
    paths += [path for path in desired.absent if os.path.lexists(path)]
    return paths


def differing_directories(desired: Desired, tolerant: bool) -> list[str]:
    """Paths of directories that are missing or have another mode or owner."""
    paths = []
    for item in desired.directories:
        try:
            info = os.stat(item.path)
        except FileNotFoundError:
            paths.append(item.path)
            continue
        mode_ok = stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == item.mode
        if not (mode_ok and _same_owner(info.st_uid, info.st_gid, item.owner, item.group, tolerant)):
            paths.append(item.path)
    return paths


def make_directories(items: list[DesiredDirectory]) -> None:
    """Create or mend directories, in the given order."""
    for item in items:
        Path(item.path).mkdir(parents=True, exist_ok=True)
        os.chown(item.path, uid_of(item.owner), gid_of(item.group))
        os.chmod(item.path, item.mode)


def write_atomically(path: str, data: bytes, mode: int, uid: int, gid: int) -> None:
    """Put `data` at `path` by rename, synced, so that a reader sees the old or the new file, never a part."""
    parent = os.path.dirname(path)
    Path(parent).mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix="." + os.path.basename(path) + ".", dir=parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _link_atomically(path: str, target: str) -> None:
    Path(os.path.dirname(path)).mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.new-{os.getpid()}"
    os.symlink(target, temporary)
    os.replace(temporary, path)


def stage(desired: Desired, root: str) -> None:
    """Lay all desired files and links out under `root` at their own paths, for a checker to read."""
    for item in desired.directories:
        place = Path(root + item.path)
        place.mkdir(parents=True, exist_ok=True)
        os.chown(place, uid_of(item.owner), gid_of(item.group))
    for file in desired.files:
        place = Path(root + file.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.data)
        os.chown(place, uid_of(file.owner), gid_of(file.group))
        place.chmod(file.mode)
    for path, target in desired.links.items():
        place = Path(root + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)


def swap(desired: Desired, paths: list[str]) -> None:
    """Bring the named paths to their desired state, one atomic step each."""
    wanted = set(paths)
    for file in desired.files:
        if file.path in wanted:
            write_atomically(file.path, file.data, file.mode, uid_of(file.owner), gid_of(file.group))
    for path, target in desired.links.items():
        if path in wanted:
            _link_atomically(path, target)
    for path in desired.absent:
        if path in wanted:
            remove(path)


def remove(path: str) -> None:
    """Remove a file, link or directory tree; nothing there is fine."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def put_back(snapshots: list[Snapshot]) -> None:
    """Restore every path to what its snapshot says."""
    for item in snapshots:
        if item.kind == "file":
            write_atomically(item.path, item.data, item.mode, item.uid, item.gid)
        elif item.kind == "link":
            _link_atomically(item.path, item.target)
        else:
            remove(item.path)


def dump_snapshots(snapshots: list[Snapshot]) -> str:
    """Snapshots as JSON text, for the copy of the last configuration that was proved good."""
    return json.dumps([{**vars(item), "data": base64.b64encode(item.data).decode()} for item in snapshots])


def load_snapshots(text: str) -> list[Snapshot]:
    """The inverse of `dump_snapshots`. Raises ValueError on text that it did not write."""
    try:
        return [Snapshot(**{**row, "data": base64.b64decode(row["data"])}) for row in json.loads(text)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a snapshot document: {error}") from error
