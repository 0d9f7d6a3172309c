"""What files looked like when their bytes were proved, so that the next run only looks at those figures.

Keyed by inode, because the trees of several models are hard links to one set of blobs. ctime is part of it: it moves
also when someone puts mtime back. Links that we make or remove move it too; `Ledger.moving` sees to that.

An inode whose bytes were read and are wrong is kept as damaged: nothing about it need have moved, and the next run
must see it nevertheless.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from .progress import write_json
from .protection import loosen


@dataclass(frozen=True)
class Proof:
    """One inode as it was when its bytes had this SHA-256; times in nanoseconds. `when` is in seconds since 1970.

    Of a damaged inode: what its bytes should be, and as it was when they were found wrong.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    when: float = 0.0  # of a proof that an earlier version wrote, nobody knows it

    @property
    def since(self) -> float:
        """When the bytes were read, or else when they were written, which is earlier."""
        return self.when or self.mtime_ns / 1e9

    def same_bytes(self, found: os.stat_result) -> bool:
        """Tell whether nothing wrote to the inode since, as far as size and mtime say."""
        return (self.size, self.mtime_ns) == (found.st_size, found.st_mtime_ns)

    def holds(self, found: os.stat_result) -> bool:
        """Tell whether nothing touched the inode since."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Ledger:
    """Proofs by inode, kept in one JSON file. A file that is missing or broken only costs hashing everything again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._proofs: dict[int, Proof] = {}
        self._damaged: dict[int, Proof] = {}
        self._dirty = False

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read the file; what cannot be read counts as empty."""
        made = cls(path)
        try:
            document: dict[str, Any] = json.loads(path.read_text())
            made._proofs = {int(inode): Proof(*values) for inode, values in document["files"].items()}
            made._damaged = {int(inode): Proof(*values) for inode, values in document.get("damaged", {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            made._proofs, made._damaged = {}, {}
        return made

    def write(self) -> None:
        """Write the file if anything changed. Raises OSError."""
        if self._dirty:
            files, damaged = (
                {inode: list(astuple(item)) for inode, item in rows.items()} for rows in (self._proofs, self._damaged)
            )
            write_json(self.path, {"schema": 1, "files": files, "damaged": damaged}, compact=True)
            self._dirty = False

    def digest(self, found: os.stat_result) -> str | None:
        """Return the proved SHA-256 of an inode that nothing touched since, else None."""
        proof = self.proof(found)
        return proof.sha256 if proof is not None else None

    def proof(self, found: os.stat_result) -> Proof | None:
        """Return the proof of an inode that nothing touched since, else None."""
        proof = self._proofs.get(found.st_ino)
        return proof if proof is not None and proof.holds(found) else None

    def damage(self, found: os.stat_result) -> Proof | None:
        """Return what is known of an inode that was found damaged, if nothing wrote to it since."""
        known = self._damaged.get(found.st_ino)
        return known if known is not None and known.same_bytes(found) else None

    def note(self, found: os.stat_result, sha256: str, when: float | None = None) -> None:
        """Note that an inode, as it was before its bytes were read, has this SHA-256; `when` is now unless said."""
        at = time.time() if when is None else when
        proof = Proof(sha256, found.st_size, found.st_mtime_ns, found.st_ctime_ns, at)
        if self._proofs.get(found.st_ino) != proof:
            self._proofs[found.st_ino] = proof
            self._dirty = True
        if self._damaged.pop(found.st_ino, None) is not None:
            self._dirty = True

    def note_damage(self, found: os.stat_result, sha256: str) -> None:
        """Note that an inode's bytes were read and have not the SHA-256 that they should."""
        self.forget(found)
        self._damaged[found.st_ino] = Proof(sha256, found.st_size, found.st_mtime_ns, found.st_ctime_ns, time.time())
        self._dirty = True

    def forget(self, found: os.stat_result) -> None:
        """Forget an inode that goes away."""
        known = [rows.pop(found.st_ino, None) for rows in (self._proofs, self._damaged)]
        self._dirty = self._dirty or known != [None, None]

    @contextmanager
    def moving(self, paths: list[Path], still: Callable[[str], Path]) -> Iterator[None]:
        """While the body adds or removes links of these files, which moves their ctime, keep what is proved proved.

        An immutable file can have neither: its flag is taken away, and set again at the end of the run.
        `still` gives for a digest the path at which its bytes are afterwards. Raises OSError.
        """
        proved: dict[str, tuple[os.stat_result, float]] = {}
        for path in paths:
            found = os.lstat(path)
            proof = self.proof(found)
            if proof is not None:
                proved[proof.sha256] = found, proof.when
        for path in paths:
            loosen(path)
        yield
        for sha256, (before, when) in proved.items():
            try:
                after = os.lstat(still(sha256))
            except FileNotFoundError:
                self.forget(before)
                continue
            if (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns):
                self.note(after, sha256, when)
            else:
                self.forget(before)
