"""Which pieces of a file arrived, on the disk beside it. Survives SIGKILL as it is; a torn end is left out.

A line is `<CRC-32 of the rest> <piece> <CRC-32 of its bytes> <source>`, behind a first line with the file's figures.
A record is written right after its piece; whether the bytes reached the disk is told by their CRC, not by the record.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from .pieces import Cut


class Journal:
    """The journal of one file on its way."""

    def __init__(self, path: Path, cut: Cut) -> None:
        self.path = path
        self._header = json.dumps({"schema": 1, "size": cut.size, "piece": cut.piece}, sort_keys=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.fstat(self._descriptor).st_size == 0:
            self._write(self._header)

    def add(self, index: int, crc: int, giver: str) -> None:
        """Note a piece that arrived. Raises OSError."""
        self._write(f"{index} {crc:08x} {giver}")

    def clear(self) -> None:
        """Start anew. Raises OSError."""
        os.ftruncate(self._descriptor, 0)
        self._write(self._header)

    def sync(self) -> None:
        """Bring it to the disk. Raises OSError."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _write(self, text: str) -> None:
        os.write(self._descriptor, _line(text))


def read_journal(path: Path, cut: Cut) -> dict[int, tuple[int, str]]:
    """Return {piece: (CRC-32, source)} as far as the journal can be read and is about this cut; {} when it is not."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return {}
    found: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        checksum, _, data = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(data):
            break
        if number == 0:
            try:
                header = json.loads(data)
            except ValueError:
                return {}
            if header != {"schema": 1, "size": cut.size, "piece": cut.piece}:
                return {}
            continue
        index, crc, giver = [*data.decode("utf-8", "replace").split(" ", 2), "", ""][:3]
        if index.isdigit() and int(index) < cut.count:
            found[int(index)] = (int(crc, 16), giver)
    return found


def damaged_ranges(path: Path, known: Path, size: int) -> list[tuple[int, int]]:
    """Return the parts (first byte, first byte after it) of a file that are not as its kept CRC-32s say.

    Empty when nothing is known about the file. Raises OSError.
    """
    cut = kept_cut(known, size)
    if cut is None:
        return []
    crcs = read_journal(known, cut)
    ranges: list[tuple[int, int]] = []
    with path.open("rb") as stream:
        for index in range(cut.count):
            start, stop = cut.span(index)
            try:
                data = os.pread(stream.fileno(), stop - start, start)
            except OSError:
                data = b""  # the disk cannot read it
            if index in crcs and (len(data) != stop - start or zlib.crc32(data) != crcs[index][0]):
                if ranges and ranges[-1][1] == start:
                    start = ranges.pop()[0]
                ranges.append((start, stop))
    return ranges


def kept_cut(path: Path, size: int) -> Cut | None:
    """Return how a file of this size was cut when its CRC-32s were kept; None when that is not known."""
    try:
        line = path.read_bytes().split(b"\n", 1)[0]
        header = json.loads(line.partition(b" ")[2])
        return Cut(size, header["piece"]) if header["size"] == size and header["piece"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_pieces(path: Path, cut: Cut, crcs: Mapping[int, int]) -> None:
    """Keep the CRC-32 of each piece of a proved file, for its repair. Raises OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    journal = Journal(temporary, cut)
    try:
        for index in sorted(crcs):
            journal.add(index, crcs[index], "")
    finally:
        journal.close()
    temporary.replace(path)


def _line(text: str) -> bytes:
    data = text.replace("\n", " ").encode("utf-8", "replace")
    return b"%08x %s\n" % (zlib.crc32(data), data)
