"""The models' directory of a host: staging, publishing by rename, keeping earlier revisions, removing."""

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

from .errors import Refusal
from .manifest import Model, parents
from .survey import FILE_MODE, FOLDER_MODE, FileStamp, Stamp, walk

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

    def published(self, model: Model) -> Path:
        """Return the folder that engines see."""
        return self.models / model.folder

    def staged(self, model: Model) -> Path:
        """Return the tree of files that arrived and were proved."""
        return self.incoming / model.folder / "tree"

    def parts(self, model: Model) -> Path:
        """Return the folder of files that are still arriving."""
        return self.incoming / model.folder / "parts"

    def stamp(self, model: Model) -> Path:
        """Return the stamp of a published revision."""
        return self.state / f"{model.folder}.json"

    def refuse_links(self, model: Model) -> None:
        """Raise Refusal when a folder on the way to the published one is a link, which could lead anywhere."""
        for path in (self.models / model.name, self.published(model), self.incoming, self.incoming / model.name):
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
        return made

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other run works on the models; waits for one that does. Raises Busy."""
        with only_run(self.state / ".lock", f"the models in {self.models}", self.patience):
            yield

    def clear_staging(self, model: Model) -> None:
        """Remove from a staged revision what its manifest does not list, and every half-arrived file."""
        shutil.rmtree(self.parts(model), ignore_errors=True)
        self.parts(model).mkdir(mode=0o700, parents=True)
        tree = self.staged(model)
        tree.mkdir(mode=0o700, exist_ok=True)
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
                self.discard(here)
        for folder in sorted(folders - {""}):
            (tree / folder).mkdir(mode=0o700, exist_ok=True)

    def publish(self, model: Model, unlisted: Sequence[str]) -> None:
        """Make the staged files visible.

        A new revision appears whole, by one rename. In a revision that is there already, each staged file replaces
        its faulty namesake by one rename, and what nobody listed goes away. Raises OSError.
        """
        tree, target = self.staged(model), self.published(model)
        for path in reversed(list(walk(tree))):
            if _is_real_folder(tree / path):
                _sync(tree / path)
        if target.is_dir():
            self._mend(tree, target, unlisted)
        else:
            for path in walk(tree):
                # A folder's own mode must allow the rename, so the top one is set afterwards.
                if path:
                    os.chmod(tree / path, FOLDER_MODE if _is_real_folder(tree / path) else FILE_MODE)
            if not target.parent.is_dir():
                target.parent.mkdir()
                target.parent.chmod(0o755)
            os.rename(tree, target)
            os.chmod(target, FOLDER_MODE)
            _sync(target.parent)
        shutil.rmtree(self.incoming / model.folder, ignore_errors=True)
        _remove_if_empty(self.incoming / model.name)

    def _mend(self, tree: Path, target: Path, unlisted: Sequence[str]) -> None:
        for path in walk(target):
            if _is_real_folder(target / path):
                (target / path).chmod(0o755)
        for path in unlisted:
            self.discard(target / path)
        for path in walk(tree):
            if _is_real_folder(tree / path):
                if not _is_real_folder(target / path):
                    self.discard(target / path)
                    (target / path).mkdir()
                continue
            if _is_real_folder(target / path):
                self.discard(target / path)
            os.chmod(tree / path, FILE_MODE)
            os.replace(tree / path, target / path)
        for path in reversed(list(walk(target))):
            if _is_real_folder(target / path):
                _sync(target / path)
                os.chmod(target / path, FOLDER_MODE)

    def stamp_all(self, model: Model, chosen: float) -> None:
        """Stamp a published revision whose every byte was just proved. Raises OSError."""
        target = self.published(model)
        files = {entry.path: FileStamp.of(target / entry.path, entry.sha256) for entry in model.files}
        Stamp(chosen, files).write(self.stamp(model))

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

    def remove(self, name: str, short: str) -> None:
        """Remove one published revision, so that it is never half visible. Raises OSError."""
        (self.state / name / f"{short}.json").unlink(missing_ok=True)
        self.discard(self.models / name / short)
        shutil.rmtree(self.incoming / name / short, ignore_errors=True)
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

    def discard(self, path: Path) -> None:
        """Take a file, link or tree out of sight by one rename, then delete it. Raises OSError."""
        if not os.path.lexists(path):
            return
        grave = Path(tempfile.mkdtemp(prefix=".trash-", dir=self.incoming))
        if _is_real_folder(path):
            os.chmod(path, 0o700)
        os.rename(path, grave / "it")
        delete(grave)


def delete(path: Path) -> None:
    """Delete a tree, also one that is read-only. Raises OSError."""
    if not _is_real_folder(path):
        path.unlink(missing_ok=True)
        return
    for item in walk(path):
        if _is_real_folder(path / item):
            os.chmod(path / item, 0o700)
    shutil.rmtree(path)


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove_if_empty(path: Path) -> None:
    if _is_real_folder(path) and not any(path.iterdir()):
        path.rmdir()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
