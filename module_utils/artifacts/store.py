"""The models' directory of a host: trees of links to blobs, published by rename; earlier revisions; removing."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.run_lock import only_run

from .blobs import Blobs, sync_folder
from .errors import Refusal
from .ledger import Ledger
from .manifest import FileEntry, Model, parents
from .protection import loosen
from .survey import FOLDER_MODE, Stamp, walk

REVISION_FOLDER = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Store:
    """Where the files of models, half-arrived ones and their stamps live; seconds to wait for another run there."""

    models: Path
    state: Path
    patience: float = 0

    @property
    def incoming(self) -> Path:
        """Return the private folder for what is not published; on the same file system, so that a rename is enough."""
        return self.models / ".incoming"

    @property
    def blobs(self) -> Blobs:
        """Return the store of the files' bytes; on the same file system, so that links are enough."""
        return Blobs(self.models / ".blobs", self.state / ".pieces")

    @property
    def ledger_file(self) -> Path:
        """Return the file with what proved files looked like."""
        return self.state / ".ledger.json"

    def published(self, model: Model) -> Path:
        """Return the folder that engines see."""
        return self.models / model.folder

    def staged(self, model: Model) -> Path:
        """Return the tree that is being made; files from the control host arrive in it."""
        return self.incoming / model.folder / "tree"

    def stamp(self, model: Model) -> Path:
        """Return the stamp of a published revision."""
        return self.state / f"{model.folder}.json"

    def refuse_links(self, model: Model) -> None:
        """Raise Refusal when a folder on the way to the published one is a link, which could lead anywhere."""
        roots = (self.blobs.root, self.blobs.root / "sha256", self.blobs.partial, self.incoming)
        for path in (self.models / model.name, self.published(model), self.incoming / model.name, *roots):
            if path.is_symlink():
                raise Refusal(f"{path} is a symbolic link; remove it, then run again")

    def prepare(self) -> bool:
        """Make the directories; tell whether one was missing. Raises OSError."""
        made = False
        for path, mode in ((self.models, 0o755), (self.incoming, 0o700), (self.state, 0o755)):
            for folder in (*reversed(path.parents), path):
                if not folder.is_dir():
                    folder.mkdir(exist_ok=True)
                    folder.chmod(mode if folder == path else 0o755)
                    made = True
        if stat.S_IMODE(self.incoming.stat().st_mode) != 0o700:
            self.incoming.chmod(0o700)
            made = True
        return self.blobs.prepare() or made

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other run works on the models; waits for one that does. Raises Busy."""
        with only_run(self.state / ".lock", f"the models in {self.models}", self.patience):
            yield

    def clear_staging(self, model: Model, ledger: Ledger) -> None:
        """Remove from a staged revision what its manifest does not list; make its folders."""
        tree = self.staged(model)
        tree.mkdir(mode=0o700, parents=True, exist_ok=True)
        listed = {entry.path for entry in model.files}
        folders = {"", *(folder for entry in model.files for folder in parents(entry.path))}
        found = list(walk(tree))
        for path in found:
            if _is_real_folder(tree / path):
                # a run that died while publishing may have left it read-only
                os.chmod(tree / path, 0o700)
        for path in reversed(found):
            here = tree / path
            regular = here.is_file() and not here.is_symlink()
            if not (path in folders if _is_real_folder(here) else regular and path in listed):
                self.discard(here, ledger)
        for folder in sorted(folders - {""}):
            (tree / folder).mkdir(mode=0o700, exist_ok=True)

    def publish(
        self, model: Model, entries: Sequence[FileEntry], unlisted: Sequence[str], ledger: Ledger, replace: bool
    ) -> None:
        """Make files visible whose blobs are in the store.

        A new revision appears whole, by one rename. With ``replace`` the revision is there already: each file replaces
        its faulty namesake by one rename, and what nobody listed goes away. Raises OSError.
        """
        tree, target = self.staged(model), self.published(model)
        for entry in entries:
            self.discard(tree / entry.path, ledger)
            self.blobs.link(entry.sha256, tree / entry.path, ledger)
        for path in reversed(list(walk(tree))):
            if _is_real_folder(tree / path):
                sync_folder(tree / path)
        if replace:
            self._mend(tree, target, unlisted, ledger)
        else:
            for path in walk(tree):
                # A folder's own mode must allow the rename, so the top one is set afterwards.
                if path and _is_real_folder(tree / path):
                    os.chmod(tree / path, FOLDER_MODE)
            if not target.parent.is_dir():
                target.parent.mkdir()
                target.parent.chmod(0o755)
            os.rename(tree, target)
            os.chmod(target, FOLDER_MODE)
            sync_folder(target.parent)
        self.discard(self.incoming / model.folder, ledger)
        _remove_if_empty(self.incoming / model.name)

    def _mend(self, tree: Path, target: Path, unlisted: Sequence[str], ledger: Ledger) -> None:
        for path in walk(target):
            if _is_real_folder(target / path):
                (target / path).chmod(0o755)
        for path in unlisted:
            self.discard(target / path, ledger)
        for path in walk(tree):
            if _is_real_folder(tree / path):
                if not _is_real_folder(target / path):
                    self.discard(target / path, ledger)
                    (target / path).mkdir()
                continue
            if _is_real_folder(target / path):
                self.discard(target / path, ledger)
            old = [target / path] if os.path.lexists(target / path) else []
            with ledger.moving([*old, tree / path], self.blobs.path):
                os.replace(tree / path, target / path)
        for path in reversed(list(walk(target))):
            if _is_real_folder(target / path):
                sync_folder(target / path)
                os.chmod(target / path, FOLDER_MODE)

    def revisions(self, name: str) -> list[str]:
        """Return the published revisions of a model, the one chosen last first."""
        parent = self.models / name
        if not parent.is_dir():
            return []
        found = [item.name for item in parent.iterdir() if REVISION_FOLDER.fullmatch(item.name)]
        return sorted(found, key=lambda item: (-self.chosen(name, item), item))

    def chosen(self, name: str, short: str) -> float:
        """Return when a revision was last chosen; 0 when nobody knows."""
        return Stamp.read(self.state / name / f"{short}.json").chosen

    def remove(self, name: str, short: str, ledger: Ledger) -> None:
        """Remove one published revision, so that it is never half visible. Raises OSError."""
        (self.state / name / f"{short}.json").unlink(missing_ok=True)
        self.discard(self.models / name / short, ledger)
        self.discard(self.incoming / name / short, ledger)
        for parent in (self.models / name, self.incoming / name, self.state / name):
            _remove_if_empty(parent)

    def leftovers(self, wanted: Sequence[Model]) -> list[Path]:
        """Return what earlier runs left in the private folder and this one has no use for."""
        keep = {self.incoming / model.folder for model in wanted}
        found: list[Path] = []
        if self.incoming.is_dir():
            for item in sorted(self.incoming.iterdir()):
                inner = [item] if item.name.startswith(".") or not _is_real_folder(item) else sorted(item.iterdir())
                found += [path for path in inner if path not in keep]
        return found

    def collect(self, wanted: Sequence[Model], ledger: Ledger) -> int:
        """Remove the blobs that no tree and no wanted model has a use for; return their bytes. Raises OSError."""
        keep = {entry.sha256 for model in wanted for entry in model.files}
        for name in os.listdir(self.blobs.partial) if self.blobs.partial.is_dir() else ():
            if name.partition(".")[0] not in keep:
                loosen(self.blobs.partial / name)
                (self.blobs.partial / name).unlink()
        return sum(self.blobs.remove(path, ledger) for path in self.blobs.unused(keep))

    def discard(self, path: Path, ledger: Ledger) -> None:
        """Take a file, link or tree out of sight by one rename, then delete it. Raises OSError."""
        if not os.path.lexists(path):
            return
        grave = Path(tempfile.mkdtemp(prefix=".trash-", dir=self.incoming))
        real = _is_real_folder(path)
        if real:
            os.chmod(path, 0o700)
        with ledger.moving([] if real else [path], self.blobs.path):
            os.rename(path, grave / "it")
        self.delete(grave, ledger)

    def delete(self, path: Path, ledger: Ledger) -> None:
        """Delete a tree, also one that is read-only; the blobs that it has links to stay proved. Raises OSError."""
        found = walk(path)
        files = [path / item for item, status in found.items() if stat.S_ISREG(status.st_mode)]
        with ledger.moving(files, self.blobs.path):
            if not stat.S_ISDIR(found[""].st_mode):
                path.unlink()
                return
            for item, status in found.items():
                if stat.S_ISDIR(status.st_mode):
                    os.chmod(path / item, 0o700)
            shutil.rmtree(path)


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove_if_empty(path: Path) -> None:
    if _is_real_folder(path) and not any(path.iterdir()):
        path.rmdir()
