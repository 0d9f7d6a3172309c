"""Blobs of every size come over whole, past the page cache where that works and through it where it does not."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.bundle import reading, taking
from ansible.module_utils.bundle.document import Piece
from ansible.module_utils.bundle.taking import CHUNK, Source, Taker
from ansible.module_utils.depot.depot import Depot

SIZES = (1, 4095, 4096, 4097, CHUNK, CHUNK + 1, 2 * CHUNK + 4096 + 7)


def _is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def _take(folder: Path, data: bytes, cuts: tuple[int, ...] = (), there: bytes = b"") -> tuple[Path, list[Any]]:
    """Bring `data`, in pieces that end at `cuts`, into an empty depot that has `there` of it from a stopped run."""
    depot = Depot(folder / "depot")
    depot.prepare()
    blob = hashlib.sha256(data).hexdigest()
    if there:
        (depot.blobs.partial / f"{blob}.import").write_bytes(there)
    sources = []
    for start, stop in zip((0, *cuts), (*cuts, len(data)), strict=True):
        path = folder / f"piece-{start}"
        path.write_bytes(data[start:stop])
        digest = hashlib.sha256(data[start:stop]).hexdigest()
        sources.append(Source(path, Piece(blob, start, stop - start, digest)))
    return depot.blobs.path(blob), Taker(depot, lambda _: None).take(blob, len(data), sources)


def _works(_: pytest.MonkeyPatch) -> None:
    """As the file system of this machine does it."""


def _refused_for_reading(patch: pytest.MonkeyPatch) -> None:
    class Stream:
        """A file of a file system that takes O_DIRECT and then cannot read so."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def fileno(self) -> int:
            return int(self._stream.fileno())

        def readinto(self, buffer: memoryview) -> int:
            if _is_direct(self.fileno()):
                raise OSError(errno.EINVAL, "Invalid argument")
            return int(self._stream.readinto(buffer))

    real = reading.fill
    patch.setattr(taking, "fill", lambda stream, buffer, path: real(Stream(stream), buffer, path))


def _refused_for_writing(patch: pytest.MonkeyPatch) -> None:
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if _is_direct(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        return int(real(descriptor, data))

    patch.setattr(taking.os, "write", write)


@pytest.mark.parametrize("file_system", [_works, _refused_for_reading, _refused_for_writing])
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, file_system: Callable[[pytest.MonkeyPatch], None]
) -> None:
    file_system(monkeypatch)
    data = os.urandom(size)
    path, faults = _take(tmp_path, data)
    assert faults == []
    assert path.read_bytes() == data


@pytest.mark.parametrize("cut", [1, 4096, 5000, CHUNK])
@pytest.mark.parametrize("there", [0, 1, 4096, 4999, CHUNK + 1])
def test_pieces_of_odd_sizes_go_on_where_a_run_was_stopped(tmp_path: Path, cut: int, there: int) -> None:
    data = os.urandom(CHUNK + 9000)
    path, faults = _take(tmp_path, data, (cut,), data[:there])
    assert faults == []
    assert path.read_bytes() == data


def test_both_sides_are_past_the_cache_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on the file system of the tests, or none of the tests above would have gone that way."""
    seen = []
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        seen.append(_is_direct(descriptor))
        return int(real(descriptor, data))

    monkeypatch.setattr(taking.os, "write", write)
    real_fill = reading.fill

    def fill(stream: Any, buffer: memoryview, path: Path) -> int:
        seen.append(_is_direct(stream.fileno()))
        return int(real_fill(stream, buffer, path))

    monkeypatch.setattr(taking, "fill", fill)
    if not reading.set_direct(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR), True):
        pytest.skip("this file system has no reading past the cache")
    assert _take(tmp_path, os.urandom(CHUNK))[1] == []
    assert seen == [True, True]


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = reading.fill

    def fill(stream: Any, buffer: memoryview, path: Path) -> int:
        with path.open("ab") as more:
            more.write(b"x")
        return int(real(stream, buffer, path))

    monkeypatch.setattr(taking, "fill", fill)
    _, faults = _take(tmp_path, os.urandom(100))
    assert [fault.text for fault in faults] == ["became longer while it was read"]
