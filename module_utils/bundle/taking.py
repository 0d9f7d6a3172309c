# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""One blob from its pieces: copied, hashed once on the way, and only then a blob of the depot.

``blobs/partial/SHA256.import`` grows; a stopped run reads what is there and goes on. Where some pieces come on another
medium, ``SHA256.pieces`` beside it lists those that are in, each proved by its own digest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.reading import BLOCK, set_direct
from ansible.module_utils.artifacts.transfer import write_all
from ansible.module_utils.depot.depot import Depot

from .document import Piece
from .reading import BadFile, fill, opened
from .writing import put

CHUNK, HASH_CHUNK = 4 * 1024 * 1024, 1024 * 1024
FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Source:
    """A piece and its file on the medium."""

    path: Path
    piece: Piece


def completes(depot: Depot, blob: str, size: int, pieces: Iterable[Piece]) -> bool:
    """Tell whether these pieces, with those that earlier media brought, make up the whole blob."""
    journal = journal_of(depot, blob)
    brought = _sizes(journal) if journal.with_suffix(".import").is_file() else {}
    return _covers({**brought, **{str(piece.offset): piece.size for piece in pieces}}, size)


class Taker:
    """Brings blobs into a depot; any number of threads may, each with another blob. `brought` counts the bytes."""

    def __init__(self, depot: Depot, tick: Callable[[int], None]) -> None:
        self.depot, self.tick = depot, tick
        self.brought = 0
        self._count = threading.Lock()

    def take(self, blob: str, size: int, sources: Sequence[Source]) -> list[BadFile]:
        """Bring one blob, or those of its pieces that are here; return what is wrong with them. Raises OSError."""
        order = sorted(sources, key=lambda source: source.piece.offset)
        partial = self.depot.blobs.partial / f"{blob}.import"
        journal = journal_of(self.depot, blob)
        whole = sum(source.piece.size for source in order) == size
        if not partial.exists():
            forget(journal)  # of a run that was stopped after it took the blob in, which is gone since
        descriptor = os.open(partial, FLAGS, 0o600)
        try:
            faults: list[BadFile] | None
            if whole and not journal.exists():
                faults = self._in_order(descriptor, blob, size, order)
            else:
                faults = self._scattered(descriptor, blob, size, order, journal)
            if faults is None:
                return []
            if not faults:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if faults:
            return faults
        self.depot.take_in(partial, blob, size)
        forget(journal)
        with self._count:
            self.brought += size
        return []

    def _in_order(self, descriptor: int, blob: str, size: int, order: Sequence[Source]) -> list[BadFile]:
        """Copy all pieces one after the other, going on behind what is there."""
        there = min(os.fstat(descriptor).st_size, size)
        for start in (there, 0) if there else (0,):
            digest = hashlib.sha256()
            os.ftruncate(descriptor, start)
            if start:
                _hash(descriptor, digest)
            os.lseek(descriptor, start, os.SEEK_SET)
            try:
                for source in order:
                    skip = max(0, start - source.piece.offset)
                    if skip < source.piece.size:
                        self._copy(source, descriptor, digest, skip)
            except BadFile as error:
                return [error]
            if digest.hexdigest() == blob:
                return []
        os.ftruncate(descriptor, 0)
        return _culprits(blob, order)

    def _scattered(
        self, descriptor: int, blob: str, size: int, order: Sequence[Source], journal: Path
    ) -> list[BadFile] | None:
        """Put each piece at its place; None while others have to come."""
        done = _read_journal(journal)
        faults: list[BadFile] = []
        for source in order:
            piece = source.piece
            if done.get(str(piece.offset)) == piece.sha256:
                continue
            os.lseek(descriptor, piece.offset, os.SEEK_SET)
            digest = hashlib.sha256()
            try:
                self._copy(source, descriptor, digest, 0)
            except BadFile as error:
                faults.append(error)
                continue
            if digest.hexdigest() != piece.sha256:
                faults.append(_differs(source.path, digest.hexdigest()))
                continue
            os.fsync(descriptor)
            done[str(piece.offset)] = piece.sha256
            sizes = {**_sizes(journal), str(piece.offset): piece.size}
            put(journal, json.dumps({"pieces": done, "sizes": sizes}).encode())
        if faults:
            return faults
        if not _covers(_sizes(journal), size):
            return None
        digest = hashlib.sha256()
        os.ftruncate(descriptor, size)
        _hash(descriptor, digest)
        if digest.hexdigest() == blob:
            return []
        os.ftruncate(descriptor, 0)
        journal.unlink(missing_ok=True)
        return _culprits(blob, order)

    def _copy(self, source: Source, descriptor: int, digest: Any, skip: int) -> None:
        """Append a piece, from its byte `skip` on. Raises BadFile for the medium's errors, OSError for the depot's.

        Past the page cache on both sides where that works: each byte is used once, and what a depot serves from memory
        stays there.
        """
        size = source.piece.size
        buffer = memoryview(mmap.mmap(-1, CHUNK))  # begins at a page; an error may still hold slices of it, so no close
        with opened(source.path, size) as stream:
            os.lseek(stream.fileno(), skip, os.SEEK_SET)
            set_direct(stream.fileno(), size - skip >= BLOCK and skip % BLOCK == 0)
            left = size - skip
            while left:
                count = fill(stream, buffer[: min(CHUNK, -(-left // BLOCK) * BLOCK)], source.path)
                if not count:
                    raise BadFile("bad", source.path, "became shorter while it was read")
                if count > left:
                    raise BadFile("bad", source.path, "became longer while it was read")
                digest.update(buffer[:count])
                _append(descriptor, buffer[:count])
                self.tick(count)
                left -= count
                if count % BLOCK:
                    set_direct(stream.fileno(), False)  # it reads from whole blocks on only


def _append(descriptor: int, data: memoryview) -> None:
    """Write whole blocks past the page cache where file system and place in the file allow it. Raises OSError."""
    whole = len(data) - len(data) % BLOCK if os.lseek(descriptor, 0, os.SEEK_CUR) % BLOCK == 0 else 0
    done = 0
    if whole and set_direct(descriptor, True):
        try:
            while done < whole and done % BLOCK == 0:
                done += os.write(descriptor, data[done:whole])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            set_direct(descriptor, False)
    write_all(descriptor, data[done:])


def _hash(descriptor: int, digest: Any) -> None:
    """Add all bytes of an open file to a digest."""
    buffer = memoryview(bytearray(HASH_CHUNK))
    place = 0
    while count := os.preadv(descriptor, [buffer], place):
        digest.update(buffer[:count])
        place += count


def _culprits(blob: str, order: Sequence[Source]) -> list[BadFile]:
    """Return which pieces of a blob that came out wrong are to blame."""
    found = []
    for source in order:
        digest = hashlib.sha256()
        try:
            with opened(source.path, source.piece.size) as stream:
                _hash(stream.fileno(), digest)
        except BadFile as error:
            found.append(error)
            continue
        except OSError as error:
            found.append(BadFile("unreadable", source.path, error.strerror or str(error)))
            continue
        if digest.hexdigest() != source.piece.sha256:
            found.append(_differs(source.path, digest.hexdigest()))
    text = f"its pieces are as listed and do not make up the blob {blob}; build the bundle again"
    return found or [BadFile("bad", order[0].path, text)]


def _differs(path: Path, digest: str) -> BadFile:
    return BadFile("bad", path, f"its bytes have the sha256 {digest}")


def journal_of(depot: Depot, blob: str) -> Path:
    """Return the list of those pieces of a blob that are in; it is nothing without the file of the pieces."""
    return Path(depot.blobs.partial / f"{blob}.pieces")


def forget(journal: Path) -> None:
    """Remove a list of pieces, also one that a killed run was about to write. Raises OSError."""
    for path in (journal, journal.with_name(f".{journal.name}.new")):
        path.unlink(missing_ok=True)


def is_in(depot: Depot, piece: Piece, size: int) -> bool:
    """Tell whether a piece of a blob of `size` bytes needs not come again. Raises OSError."""
    if depot.has(piece.blob, size):
        return True
    journal = journal_of(depot, piece.blob)
    return journal.with_suffix(".import").is_file() and _read_journal(journal).get(str(piece.offset)) == piece.sha256


def _covers(sizes: dict[str, int], size: int) -> bool:
    """Tell whether pieces make up a whole; those of a bundle that was cut another way may overlap."""
    end = 0
    for offset, count in sorted((int(offset), count) for offset, count in sizes.items()):
        if offset > end:
            return False
        end = max(end, offset + count)
    return end >= size


def _read_journal(path: Path) -> dict[str, str]:
    return dict(_journal(path).get("pieces", {}))


def _sizes(path: Path) -> dict[str, int]:
    return dict(_journal(path).get("sizes", {}))


def _journal(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
