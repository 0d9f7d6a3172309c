"""What a store holds: its files, one per inode; and which of its trees the host's releases refer to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.release_store import Store as Releases

from .ledger import Ledger
from .manifest import SHA256
from .store import Store
from .survey import walk


@dataclass
class Held:
    """One inode: its status, the SHA-256 that it should have ('' when nobody knows), and where it is.

    `places` begins with its name in the store of blobs, where it has one; `trees` are the NAME/REVISION with it.
    """

    status: os.stat_result
    sha256: str
    places: list[Path] = field(default_factory=list)
    trees: list[str] = field(default_factory=list)

    @property
    def shown(self) -> Path:
        """The place that an operator knows: that in a tree, if there is one."""
        return self.places[-1]


def trees(store: Store) -> Iterator[str]:
    """Yield each published NAME/REVISION. Raises OSError."""
    for folder in sorted(store.models.iterdir()) if store.models.is_dir() else ():
        if not folder.name.startswith(".") and folder.is_dir() and not folder.is_symlink():
            for short in sorted(store.revisions(folder.name)):
                yield f"{folder.name}/{short}"


def holdings(store: Store, ledger: Ledger) -> list[Held]:
    """Return every file of the store. Raises OSError."""
    found: dict[int, Held] = {}
    for item in store.blobs.every():
        if SHA256.fullmatch(item.name) and item.is_file(follow_symlinks=False):
            status = os.lstat(item.path)
            found[status.st_ino] = Held(status, item.name, [Path(item.path)])
    for tree in trees(store):
        for path, status in walk(store.models / tree).items():
            if stat.S_ISREG(status.st_mode):
                known = ledger.proof(status) or ledger.damage(status)
                held = found.setdefault(status.st_ino, Held(status, known.sha256 if known else ""))
                held.places.append(store.models / tree / path)
                if tree not in held.trees:
                    held.trees.append(tree)
    return list(found.values())


@dataclass(frozen=True)
class References:
    """Which releases refer to a tree (NAME/REVISION); the release in service; those whose manifest cannot be read."""

    by_tree: dict[str, list[int]] = field(default_factory=dict)
    current: int = 0
    unreadable: tuple[int, ...] = ()

    def keeps(self, tree: str) -> bool:
        """Tell whether a tree must stay: a release refers to it, or one may that cannot be read."""
        return bool(self.unreadable) or tree in self.by_tree


def references(store: Store, root: Path | None) -> References:
    """Read which trees the releases below `root` refer to; `root` None stands for a host without any."""
    if root is None:
        return References()
    releases = Releases(str(root), "")
    by_tree: dict[str, list[int]] = {}
    unreadable = []
    for number in releases.numbers():
        try:
            places = [Path(row["weights_path"]) for row in releases.manifest(number)["engines"]]
        except (KeyError, TypeError):
            unreadable.append(number)
            continue
        for place in sorted({place for place in places if place.parent.parent == store.models}):
            by_tree.setdefault(str(place.relative_to(store.models)), []).append(number)
    return References(by_tree, releases.current(), tuple(unreadable))
