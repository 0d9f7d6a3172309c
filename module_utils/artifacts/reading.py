"""Reading a file from the disk itself, past the page cache, and what was seen."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from .transfer import CHUNK, Tick

BLOCK = 4096


@dataclass(frozen=True)
class Reading:
    """A file as it was before its bytes were read, what they should be, and whether they are."""

    path: Path
    before: os.stat_result
    sha256: str
    good: bool


def hash_from_disk(path: Path, tick: Tick) -> tuple[str, int]:
    """Return the SHA-256 and the number of bytes of a regular file as the disk has them. Raises OSError.

    Read with O_DIRECT: what is proved is the disk and not a copy in memory, and nothing that is being served is driven
    out of memory for it. A file system that cannot do that reads through the cache, which is emptied of the file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    digest, size = hashlib.sha256(), 0
    with open(descriptor, "rb", buffering=0) as stream, mmap.mmap(-1, CHUNK) as pages, memoryview(pages) as buffer:
        whole = os.fstat(descriptor).st_size
        direct = set_direct(descriptor, True)
        if not direct:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while size < whole:
            try:
                count = stream.readinto(buffer)
            except OSError as error:
                if not direct or error.errno != errno.EINVAL:
                    raise
                direct = set_direct(descriptor, False)
                continue
            if not count:
                break
            digest.update(buffer[:count])
            if not direct:
                os.posix_fadvise(descriptor, size, count, os.POSIX_FADV_DONTNEED)
            elif count % BLOCK:
                direct = set_direct(descriptor, False)  # it reads from whole blocks on only
            size += count
            tick(count)
    return digest.hexdigest(), size


def set_direct(descriptor: int, wanted: bool) -> bool:
    """Read and write past the cache from now on, or no longer; tell whether that is now so."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return wanted
