"""What files looked like when their bytes were proved, so that the next run only looks at those figures.

Keyed by inode, because the trees of several models are hard links to one set of blobs. ctime is part of it: it moves
also when someone puts mtime back. Links that we make or remove move it too; `Ledger.moving` sees to that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .progress import write_json


@dataclass(frozen=True)
class Proof:
    """One inode as it was when its bytes had this SHA-256; times in nanoseconds."""

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int

    def holds(self, found: os.stat_result) -> bool:
        """Tell whether nothing touched the inode since."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Ledger:
    """Proofs by inode, kept in one JSON file. A file that is missing or broken only costs hashing everything again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._proofs: dict[int, Proof] = {}
        self._dirty = False

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read the file; what cannot be read counts as empty."""
        made = cls(path)
        try:
            document: dict[str, Any] = json.loads(path.read_text())
            made._proofs = {int(inode): Proof(*values) for inode, values in document["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            made._proofs = {}
        return made

    def write(self) -> None:
        """Write the file if anything changed. Raises OSError."""
        if self._dirty:
            files = {
                inode: [item.sha256, item.size, item.mtime_ns, item.ctime_ns] for inode, item in self._proofs.items()
            }
            write_json(self.path, {"schema": 1, "files": files}, compact=True)
            self._dirty = False

    def digest(self, found: os.stat_result) -> str | None:
        """Return the proved SHA-256 of an inode that nothing touched since, else None."""
        proof = self._proofs.get(found.st_ino)
        return proof.sha256 if proof is not None and proof.holds(found) else None

    def note(self, found: os.stat_result, sha256: str) -> None:
        """Note that an inode, as it was before its bytes were read, has this SHA-256."""
        proof = Proof(sha256, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._proofs.get(found.st_ino) != proof:
            self._proofs[found.st_ino] = proof
            self._dirty = True

    def forget(self, found: os.stat_result) -> None:
        """Forget an inode that goes away."""
        if self._proofs.pop(found.st_ino, None) is not None:
            self._dirty = True

    @contextmanager
    def moving(self, paths: list[Path], still: Callable[[str], Path]) -> Iterator[None]:
        """While the body adds or removes links of these files, which moves their ctime, keep what is proved proved.

        `still` gives for a digest the path at which its bytes are afterwards. Raises OSError.
        """
        proved: dict[str, os.stat_result] = {}
        for path in paths:
            found = os.lstat(path)
            sha256 = self.digest(found)
            if sha256 is not None:
                proved[sha256] = found
        yield
        for sha256, before in proved.items():
            try:
                after = os.lstat(still(sha256))
            except FileNotFoundError:
                self.forget(before)
                continue
            if (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns):
                self.note(after, sha256)
            else:
                self.forget(before)
