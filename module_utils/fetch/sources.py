"""Where the bytes of files come from: what a source is, and the one that is a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.sources import open_beneath

from .errors import Unusable


@dataclass(frozen=True)
class Item:
    """A file to have: whose it is, where it lies in its model, what its bytes are. `repo` is the hub's name for it."""

    model: str
    revision: str
    path: str
    size: int
    sha256: str
    repo: str = ""

    @property
    def label(self) -> str:
        """Return the file's name for people."""
        return f"{self.model}/{self.path}"


class Body(Protocol):
    """Bytes of a file from `start` on; `whole`: up to the file's end, although only a part was asked for."""

    start: int
    whole: bool
    etag: str

    def read(self, count: int) -> bytes:
        """Return some bytes, at most `count`; b'' at the end. Raises Retry."""

    def close(self) -> None:
        """Let go of it."""


class Channel(Protocol):
    """One thread's way to a source."""

    def open(self, item: Item, start: int, stop: int) -> Body:
        """Ask for bytes; what comes may begin at 0 when the source knows no ranges. Raises Retry, Unusable, Dead."""

    def close(self) -> None:
        """Let go of connections."""


class Source(Protocol):
    """A place that may have files."""

    name: str

    def place(self, item: Item) -> str:
        """Name the place of a file for the operator."""

    def problem(self, item: Item) -> str | None:
        """Say, without asking a server, why a file cannot be had, or None."""

    def channel(self) -> Channel:
        """Make a way to it for one thread."""


class Folder:
    """A folder on this host, such as a mounted medium, with one folder per model. Symbolic links are refused."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = f"file://{root}"

    def place(self, item: Item) -> str:
        """Name the file."""
        return str(self.root / item.label)

    def problem(self, item: Item) -> str | None:
        """Look at the file's kind and size."""
        if not self.root.is_dir():
            return f"the folder {self.root} is not there; is the medium mounted?"
        try:
            os.close(self._open(item))
        except Unusable as error:
            return str(error)
        return None

    def channel(self) -> Folder:
        """Return itself: nothing is kept open."""
        return self

    def open(self, item: Item, start: int, stop: int) -> FolderBody:
        """Open a file. Raises Unusable."""
        return FolderBody(self._open(item), start, stop, self.place(item))

    def close(self) -> None:
        """Nothing is kept open."""

    def _open(self, item: Item) -> int:
        try:
            descriptor: int = open_beneath(self.root, item.label)
        except Refusal as refusal:
            raise Unusable(str(refusal)) from refusal
        found = os.fstat(descriptor).st_size
        if found != item.size:
            os.close(descriptor)
            raise Unusable(f"{self.place(item)}: expected {item.size} bytes, found {found}")
        return descriptor


class FolderBody:
    """A part of a local file."""

    etag = ""
    whole = False

    def __init__(self, descriptor: int, start: int, stop: int, place: str) -> None:
        self.start = start
        self._descriptor, self._here, self._stop, self._place = descriptor, start, stop, place

    def read(self, count: int) -> bytes:
        """Return some bytes. Raises Unusable for a read error of the medium."""
        try:
            data = os.pread(self._descriptor, min(count, self._stop - self._here), self._here)
        except OSError as error:
            raise Unusable(f"{self._place}: {error.strerror} at byte {self._here}") from error
        self._here += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
