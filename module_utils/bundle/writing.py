# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Bringing blobs of a depot to the volumes of a bundle, piece by piece, proved on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.transfer import hash_file, write_all
from ansible.module_utils.depot.depot import Depot

from .document import Piece, volume_name
from .packing import Cut
from .reading import BadFile, fill, opened

CHUNK = 1024 * 1024

Tick = Callable[[int], None]


class Writer:
    """Writes into the volumes below `out`; any number of threads may. `written` has the sizes of new pieces."""

    def __init__(self, depot: Depot, out: Path, tick: Tick) -> None:
        self.depot, self.out, self.tick = depot, out, tick
        self.written: list[int] = []
        self.left = {item.stat().st_size for folder in out.glob("volume-*") for item in os.scandir(folder)}

    def write(self, blob: str, rows: Sequence[Cut]) -> list[tuple[int, Piece]]:
        """Bring all pieces of one blob, in order; return each with its volume. Raises Refusal, OSError."""
        source, digest = self.depot.blobs.path(blob), hashlib.sha256()
        if len(rows) == 1 and self._is_there(self._folder(rows[0]) / blob, rows[0].size):
            self.tick(rows[0].size)
            return [(rows[0].volume, Piece(blob, 0, rows[0].size, blob))]
        made = []
        try:
            with opened(source, sum(row.size for row in rows)) as stream:
                for row in rows:
                    name = self._piece(stream, source, row, digest, is_whole=len(rows) == 1)
                    made.append((row.volume, Piece(blob, row.offset, row.size, name)))
        except BadFile as error:
            raise Refusal(f"{error}; bring this file of the depot again: ./redoubt play gather") from None
        if digest.hexdigest() != blob:
            raise Refusal(
                f"{source}: its bytes have the sha256 {digest.hexdigest()}, so the depot is damaged here; "
                "take this file away and bring it again: ./redoubt play gather"
            )
        return made

    def _piece(self, stream: BinaryIO, source: Path, row: Cut, whole: Any, is_whole: bool) -> str:
        """Bring the next piece of a blob whose digest is `whole`; return the piece's SHA-256."""
        folder = self._folder(row)
        digest = whole if is_whole else hashlib.sha256()
        digests = [whole] if is_whole else [whole, digest]
        if not is_whole and row.size in self.left:  # perhaps an earlier run wrote it; its name is not known yet
            self._copy(stream, source, row.size, None, digests)
            if self._is_there(folder / digest.hexdigest(), row.size):
                return str(digest.hexdigest())
            os.lseek(stream.fileno(), row.offset, os.SEEK_SET)
            digests = []
        temporary = folder / f".{row.blob[:32]}{row.offset:x}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            try:
                self._copy(stream, source, row.size, descriptor, digests)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_whole and whole.hexdigest() != row.blob:
                return row.blob  # the caller refuses it
            os.replace(temporary, folder / digest.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
        self.written.append(row.size)
        return str(digest.hexdigest())

    def _folder(self, row: Cut) -> Path:
        return self.out / volume_name(row.volume)

    @staticmethod
    def _is_there(path: Path, size: int) -> bool:
        """Tell whether a piece of an earlier run stands there whole."""
        try:
            return path.lstat().st_size == size and hash_file(path, lambda _: None)[0] == path.name
        except OSError:
            return False

    def _copy(self, stream: BinaryIO, source: Path, size: int, target: int | None, digests: Sequence[Any]) -> None:
        buffer = memoryview(bytearray(min(CHUNK, size or 1)))
        while size:
            count = fill(stream, buffer[: min(len(buffer), size)], source)
            if not count:
                raise BadFile("bad", source, "became shorter while it was read")
            for digest in digests:
                digest.update(buffer[:count])
            if target is not None:
                write_all(target, buffer[:count])
                self.tick(count)
            size -= count


def put(path: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old or the new one, and it is on the disk. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
