"""The content-addressed store of a host: each file's bytes once, under its SHA-256; trees are hard links to it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .ledger import Ledger
from .protection import loosen

FILE_MODE = 0o444
SYNCS = 16
# More names than one inode may have (ext4: 65,000), or a file system without hard links.
NO_LINK = (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Blobs:
    """The store's folders; `pieces` (elsewhere) holds the CRC-32 of the pieces of large blobs."""

    root: Path
    pieces: Path

    def path(self, sha256: str) -> Path:
        """Return where the bytes with this SHA-256 are, or would be."""
        return self.root / "sha256" / sha256[:2] / sha256

    @property
    def partial(self) -> Path:
        """Return the private folder of files on their way."""
        return self.root / "partial"

    def damaged(self, sha256: str) -> Path:
        """Return where a damaged blob is kept until it is mended."""
        return self.partial / f"{sha256}.damaged"

    def pieces_of(self, sha256: str) -> Path:
        """Return the file with the CRC-32 of each piece of a blob."""
        return self.pieces / sha256[:2] / sha256

    def prepare(self) -> bool:
        """Make the folders; tell whether one was missing. Raises OSError."""
        made = False
        for folder, mode in ((self.root, 0o755), (self.root / "sha256", 0o755), (self.partial, 0o700)):
            if not folder.is_dir():
                folder.mkdir()
                made = True
                folder.chmod(mode)
        return made

    def take_in(self, source: Path, sha256: str) -> Path:
        """Move a file whose bytes were proved into the store; return its place. Raises OSError.

        Its name is on the disk after `sync`; the folders are many, and each sync of one costs a commit of the journal.
        """
        target = self.path(sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)  # another thread may have a blob for the same folder
            target.parent.chmod(0o755)
        os.chmod(source, FILE_MODE)
        loosen(target)
        os.replace(source, target)
        return target

    def sync(self, digests: Collection[str]) -> None:
        """Bring the names of blobs to the disk. Raises OSError."""
        folders = {self.path(sha256).parent for sha256 in digests}
        with ThreadPoolExecutor(SYNCS) as pool:  # each waits for the disk, which takes what waits together in one go
            list(pool.map(sync_folder, folders))
        if folders:
            sync_folder(self.root / "sha256")

    def link(self, sha256: str, target: Path, ledger: Ledger) -> None:
        """Give a blob another name. Where the file system allows no further link to it, copy. Raises OSError."""
        blob = self.path(sha256)
        with ledger.moving([blob], self.path):
            if stat.S_IMODE(os.lstat(blob).st_mode) != FILE_MODE:
                os.chmod(blob, FILE_MODE)
            try:
                os.link(blob, target)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                shutil.copyfile(blob, target)
                os.chmod(target, FILE_MODE)

    def adopt(self, path: Path, sha256: str, ledger: Ledger) -> bool:
        """Make a proved file of a tree one with its blob; tell whether anything changed. Raises OSError."""
        try:
            return self._adopt(path, sha256, ledger)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            return False

    def _adopt(self, path: Path, sha256: str, ledger: Ledger) -> bool:
        blob = self.path(sha256)
        try:
            here = os.lstat(blob)
        except FileNotFoundError:
            blob.parent.mkdir(exist_ok=True)
            with ledger.moving([path], lambda _: path):
                os.link(path, blob)
            return True
        if here.st_ino == os.lstat(path).st_ino:
            return False
        keep, change = (blob, path) if ledger.digest(here) == sha256 else (path, blob)
        temporary = self.partial / f"{sha256}.link"
        loosen(temporary)
        temporary.unlink(missing_ok=True)
        old = os.lstat(change)
        loosen(change)
        with ledger.moving([keep], lambda _: keep):
            os.link(keep, temporary)
            os.replace(temporary, change)
        if old.st_nlink == 1:
            ledger.forget(old)
        return True

    def every(self) -> Iterator[os.DirEntry[str]]:
        """Yield every blob, in no order. Raises OSError."""
        base = self.root / "sha256"
        for folder in os.scandir(base) if base.is_dir() else ():
            if folder.is_dir(follow_symlinks=False):
                yield from os.scandir(folder.path)

    def unused(self, keep: Collection[str]) -> list[Path]:
        """Return the blobs that no tree has a link to, but for those to keep. Raises OSError."""
        return sorted(
            Path(item.path)
            for item in self.every()
            if item.name not in keep and item.stat(follow_symlinks=False).st_nlink == 1
        )

    def remove(self, path: Path, ledger: Ledger) -> int:
        """Remove a blob and what is known of it; return its bytes. Raises OSError."""
        found = os.lstat(path)
        loosen(path)
        path.unlink()
        self.pieces_of(path.name).unlink(missing_ok=True)
        ledger.forget(found)
        return found.st_size


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
