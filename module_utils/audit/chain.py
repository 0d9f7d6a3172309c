# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Seals and their chain: each seal has the hash of the one before it in its own. Standard library only, Python 3.9+.

Pure but for `read_lines`, which reads the file of seals, one JSON object a line.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

#: What the first seal follows.
NOTHING = "0" * 64


@dataclass(frozen=True)
class Seal:
    """A stretch of a log file: bytes `start` to `end` (not included), with their SHA-256.

    `file` is the SHA-256 of the file's first line, which stays what it is when the file is renamed or compressed;
    `name` and `inode` are what it had when it was sealed, `newest` is when its last line was written, at the latest.
    """

    seq: int
    time: str
    file: str
    name: str
    inode: int
    start: int
    end: int
    lines: int
    sha256: str
    newest: str
    chain: str = ""

    def line(self) -> bytes:
        """The seal as it stands in the file."""
        return _canonical(asdict(self)) + b"\n"

    def link(self, previous: str) -> str:
        """Its hash when it follows the seal of hash `previous`."""
        record = {key: value for key, value in asdict(self).items() if key != "chain"}
        return hashlib.sha256(previous.encode() + _canonical(record)).hexdigest()

    def after(self, previous: str) -> Seal:
        """The same with its hash."""
        return replace(self, chain=self.link(previous))


def _canonical(record: dict[str, object]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def parse(line: bytes) -> Seal:
    """Read a line of the file of seals. Raises ValueError when it is not just as it was written."""
    document = json.loads(line)
    try:
        seal = Seal(**document)
        well = seal.line() == line and 0 <= seal.start < seal.end and moment(seal.time) and moment(seal.newest)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not well:
        raise ValueError("it is not written as seals are")
    return seal


def read_lines(path: Path, most: int | None = None) -> Iterator[bytes]:
    """The whole lines of a file of seals, of its first `most` bytes; none when it is not there. Raises OSError."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        position = 0
        for line in stream:
            position += len(line)
            if not line.endswith(b"\n") or (most is not None and position > most):
                return
            yield line


def stamp(seconds: float) -> str:
    """A moment as text, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def moment(text: str) -> int:
    """The inverse of `stamp`. Raises ValueError."""
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
