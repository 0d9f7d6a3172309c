"""Write protection that the file system itself keeps: the immutable flag, and fs-verity.

A flag belongs to an inode, so it holds for all of its hard links. An immutable file cannot be written, renamed,
removed, chmodded or linked, also not by root, until the flag is taken away (CAP_LINUX_IMMUTABLE). A file with
fs-verity can never be written again, and each read of it is proved by the kernel; links and removing stay possible.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

NONE, IMMUTABLE, VERITY = KINDS = ("none", "immutable", "verity")
# linux/fs.h and linux/fsverity.h; the numbers are the same on x86_64 and aarch64.
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IOC_ENABLE_VERITY = 0x40806685
IMMUTABLE_FLAG = 0x10
VERITY_FLAG = 0x100000
# struct fsverity_enable_arg: version 1, SHA-256, blocks of 4096 bytes, no salt, no signature.
VERITY_ARGUMENT = struct.pack("<IIIIQIIQ88x", 1, 1, 4096, 0, 0, 0, 0, 0)
# What a file system without flags, or without verity, answers.
LACKING = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
WHY = {
    IMMUTABLE: "its file system has no immutable flag",
    VERITY: "its file system has no fs-verity (ext4: tune2fs -O verity; XFS and overlay have none)",
}


def loosen(path: Path) -> None:
    """Take the immutable flag from a file, if it is there and has it. Raises OSError."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return
        flags = _flags(descriptor)
        if flags & IMMUTABLE_FLAG:
            _set_flags(descriptor, flags & ~IMMUTABLE_FLAG)


def is_protected(path: Path, kind: str) -> bool:
    """Tell whether a file is protected in this way, and with C(none) or C(verity) not immutable. Raises OSError."""
    with _opened(path) as descriptor:
        flags = _flags(descriptor) if descriptor is not None else 0
    immutable = bool(flags & IMMUTABLE_FLAG)
    return immutable if kind == IMMUTABLE else not immutable and (kind == NONE or bool(flags & VERITY_FLAG))


def protect(path: Path, kind: str) -> None:
    """Protect a file in this way. Raises OSError."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return
        flags = _flags(descriptor)
        if kind == IMMUTABLE:
            _set_flags(descriptor, flags | IMMUTABLE_FLAG)
            return
        if flags & IMMUTABLE_FLAG:
            _set_flags(descriptor, flags & ~IMMUTABLE_FLAG)
        if kind == VERITY and not flags & VERITY_FLAG:
            fcntl.ioctl(descriptor, FS_IOC_ENABLE_VERITY, VERITY_ARGUMENT)


def problem(folder: Path, kind: str) -> str | None:
    """Say why files below a folder cannot be protected in this way, or None; tries it on a file of its own."""
    if kind == NONE:
        return None
    with tempfile.TemporaryDirectory(prefix=".protect-", dir=folder) as place:
        probe = Path(place, "probe")
        probe.write_bytes(b"probe")
        try:
            protect(probe, kind)
            if not is_protected(probe, kind):
                return WHY[kind]
        except OSError as error:
            if error.errno in LACKING:
                return WHY[kind]
            if error.errno in (errno.EPERM, errno.EACCES):
                return "root may not do that here (a container without CAP_LINUX_IMMUTABLE?)"
            return error.strerror or str(error)
        finally:
            loosen(probe)
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open a regular file for its flags; None for what is none, or not there."""
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK) if regular else None
    except FileNotFoundError:
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _flags(descriptor: int) -> int:
    buffer = bytearray(8)
    try:
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, buffer, True)
    except OSError as error:
        if error.errno in LACKING:
            return 0
        raise
    return int.from_bytes(buffer[:4], "little")


def _set_flags(descriptor: int, flags: int) -> None:
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("<q", flags))
