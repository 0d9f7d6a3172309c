# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a log: the one that is written, and the rotated ones beside it. Standard library only, Python 3.9+."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

#: What reading a compressed file may raise, besides.
DAMAGE = (OSError, EOFError, zlib.error)
BLOCK = 1 << 20
#: No line of Nginx is longer: it takes 64 KiB of headers at most.
LONGEST = 1 << 20


@dataclass(frozen=True)
class LogFile:
    """A file of the log. `identity` is empty when it has no whole line, or cannot be read (`fault`)."""

    path: Path
    inode: int
    modified: float
    identity: str
    fault: str = ""

    @property
    def packed(self) -> bool:
        """Whether it is compressed."""
        return self.path.name.endswith(".gz")

    def open(self) -> IO[bytes]:
        """Open it. Raises OSError; FileNotFoundError too when another file has its name meanwhile."""
        stream = self._own()
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if self.packed else stream

    def _own(self) -> IO[bytes]:
        stream = self.path.open("rb")
        if os.fstat(stream.fileno()).st_ino != self.inode:
            stream.close()
            raise FileNotFoundError(str(self.path))
        return stream

    def may_hold_more(self, position: int) -> bool | None:
        """Whether there are bytes after `position`; None when there are fewer. Raises as `open` does."""
        with self._own() as stream:
            size = stream.seek(0, os.SEEK_END)
            if self.packed:
                # gzip ends with the size of what it holds, modulo 2^32.
                stream.seek(max(0, size - 4))
                return int.from_bytes(stream.read(4), "little") != position % (1 << 32)
        return None if size < position else size > position


def find(log: Path) -> list[LogFile]:
    """The files of the log, the oldest first. Of two that begin alike the one that is not compressed counts.

    Raises OSError.
    """
    names = sorted(name for name in os.listdir(log.parent) if name == log.name or name.startswith(log.name + "-"))
    found: dict[str, LogFile] = {}
    others = []
    for name in names:  # a compressed file comes after the one that it was made of
        path = log.parent / name
        try:
            file = _look(path)
        except FileNotFoundError:
            continue
        if not file.identity:
            others.append(file)
        else:
            found.setdefault(file.identity, file)
    known = {path for file in found.values() for path in (file.path, _packed(file.path))}
    rest = [file for file in others if file.path not in known]
    return sorted([*found.values(), *rest], key=lambda file: (file.path == log, file.modified, file.path))


def find_all(log: Path, wanted: Container[str], count: int) -> list[LogFile]:
    """As `find`, and once more where not all `count` files of `wanted` were seen: one may just have been renamed."""
    files = find(log)
    if sum(file.identity in wanted for file in files) < count:
        files = find(log)
    return files


def _packed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def _look(path: Path) -> LogFile:
    status = os.stat(path)
    file = LogFile(path, status.st_ino, status.st_mtime, "")
    try:
        with file.open() as stream:
            first = stream.readline(LONGEST)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        return LogFile(path, status.st_ino, status.st_mtime, "", str(error) or "it is damaged")
    identity = hashlib.sha256(first).hexdigest() if first.endswith(b"\n") else ""
    return LogFile(path, status.st_ino, status.st_mtime, identity)
