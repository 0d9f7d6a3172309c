# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading what stands on a medium: regular files only, no link is followed, and every error names its file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ansible.module_utils.artifacts.reading import set_direct

from .document import Unreadable

LONGEST = 512 * 1024 * 1024  # a list of a volume or a manifest that is longer is none


class BadFile(Exception):
    """A file of the medium that cannot be used; `kind` is missing, bad or unreadable."""

    def __init__(self, kind: str, path: Path, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.kind, self.path, self.text = kind, path, text


@contextmanager
def opened(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file of so many bytes, without a buffer. Raises BadFile, also for an error while it is open."""
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise BadFile("bad", path, "is not a regular file")
        if size is not None and found.st_size != size:
            raise BadFile("bad", path, f"expected {size} bytes, found {found.st_size}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise BadFile("missing", path, "is not there") from None
    except OSError as error:
        raise BadFile("unreadable", path, error.strerror or str(error)) from None
    with open(descriptor, "rb", buffering=0) as stream:
        yield stream


def fill(stream: BinaryIO, buffer: memoryview, path: Path) -> int:
    """Read into a buffer; return how many bytes, 0 at the end. Raises BadFile.

    A stream that was set to read past the page cache and cannot do that here reads through it from then on.
    """
    try:
        try:
            return stream.readinto(buffer) or 0  # type: ignore[attr-defined]  # a raw file has it
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            set_direct(stream.fileno(), False)
            return stream.readinto(buffer) or 0  # type: ignore[attr-defined]  # the same raw file
    except OSError as error:
        raise BadFile("unreadable", path, error.strerror or str(error)) from None


def read_all(path: Path) -> bytes:
    """Return a small file's bytes. Raises BadFile."""
    with opened(path) as stream:
        try:
            data = stream.read(LONGEST + 1)
        except OSError as error:
            raise BadFile("unreadable", path, error.strerror or str(error)) from None
    if len(data) > LONGEST:
        raise BadFile("bad", path, f"has more than {LONGEST} bytes")
    return data


def is_folder(path: Path) -> bool:
    """Tell whether there is a real folder, not a link to one. Raises BadFile."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadFile("unreadable", path, error.strerror or str(error)) from None


def names(folder: Path) -> list[str]:
    """Return what a folder holds, sorted. Raises Unreadable."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise Unreadable(
            f"{folder}: {error.strerror}; is the medium mounted, and is this the bundle's folder?"
        ) from None
