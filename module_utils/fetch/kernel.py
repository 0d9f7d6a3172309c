"""Three calls of Linux that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
WRITE = 2  # SYNC_FILE_RANGE_WRITE
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def allocate(descriptor: int, size: int) -> None:
    """Reserve a file's bytes on the disk; where the file system cannot, only set its size. Raises OSError (ENOSPC).

    Not os.posix_fallocate: on a file system without the call, that writes to every block.
    """
    if size == 0:
        return
    call = _LIBC.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(descriptor, 0, 0, size) != 0:
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))
        os.ftruncate(descriptor, size)


def start_writing(descriptor: int, offset: int, length: int) -> None:
    """Let the kernel begin to bring a part of a file to the disk, so that waiting for it later is short.

    Only a hint: a file system that cannot is no error.
    """
    call = _LIBC.sync_file_range
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    call(descriptor, offset, length, WRITE)


def sync_file_system(folder: str) -> None:
    """Bring everything written to a folder's file system to the disk: one call for many small files. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
