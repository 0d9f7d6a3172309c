"""Reading files from the disk itself, past the page cache."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import reading
from ansible.module_utils.artifacts.reading import hash_from_disk
from ansible.module_utils.artifacts.transfer import CHUNK

from tests.support.image_archives import payload
from tests.support.weight_trees import digest


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK, CHUNK + 4096, 2 * CHUNK + 777])
@pytest.mark.parametrize("direct", ["real", "refused at once", "refused when reading"])
def test_hash_of_what_the_disk_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, direct: str) -> None:
    path = tmp_path / "file"
    data = payload(size, 3)
    path.write_bytes(data)
    if direct == "refused at once":
        real = reading.fcntl.fcntl

        def refuse(descriptor: int, command: int, *rest: int) -> Any:
            if rest and rest[0] & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(descriptor, command, *rest)

        monkeypatch.setattr(reading.fcntl, "fcntl", refuse)
    elif direct == "refused when reading":
        monkeypatch.setattr(reading, "CHUNK", CHUNK + 512)  # a length that the kernel refuses for O_DIRECT, or not
    read: list[int] = []
    assert hash_from_disk(path, read.append) == (digest(data), size)
    assert sum(read) == size


def cached_pages(path: Path) -> int:
    """Pages of a file that are in memory, by mincore."""
    pages = -(-path.stat().st_size // mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    vector = (ctypes.c_ubyte * pages)()
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as area:
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(area)), vector) == 0
    return sum(page & 1 for page in vector)


@pytest.mark.parametrize("direct", [True, False])
def test_reading_leaves_nothing_in_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(payload(2 * CHUNK + 777, 3))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if cached_pages(path):
        pytest.skip("this file system keeps its files in memory (tmpfs)")
    if not direct:
        monkeypatch.setattr(reading, "set_direct", lambda descriptor, wanted: False)
    hash_from_disk(path, lambda _: None)
    assert cached_pages(path) <= 1  # the last part of a page, which O_DIRECT leaves to others
