# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Releases on disk: numbered directories, the link `current`, and the record of what was proved.

    ROOT/releases/7/{compose.yml,env/,manifest.json}   never changed once they are there
    ROOT/releases/.failed/                             the last refused release, for the operator to look at
    ROOT/current -> releases/7
    STATE/releases.json                                which releases answered a real prompt, which was current before

Every step leaves a state from which a next run goes on. Standard library only, Python 3.9+.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.run_lock import only_run


def file_mode(path: str) -> int:
    """Mode of a release's file: environments may hold secrets."""
    return 0o600 if path.startswith("env/") else 0o644


def write_file(path: Path, text: str, mode: int) -> None:
    """Write a file so that after a power cut it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o755)  # whatever the umask says


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} when it is missing or broken."""
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


class Store:
    """All releases of one host."""

    def __init__(self, root: str, state: str) -> None:
        self.root = Path(root)
        self.releases = self.root / "releases"
        self.link = self.root / "current"
        self.state_file = Path(state) / "releases.json"
        self.progress_file = Path(state) / "progress" / "inference.json"

    def _prepare(self) -> None:
        """Make the directories and clear away what a killed run left half written."""
        for folder in (self.releases, self.state_file.parent, self.progress_file.parent):
            _make_directory(folder)
        for left in self.releases.glob(".staged-*"):
            shutil.rmtree(left)

    @contextmanager
    def prepared(self, patience: float) -> Iterator[None]:
        """The directories are there and no other run works on them; waits `patience` seconds for one. Raises Busy."""
        _make_directory(self.root)
        with only_run(self.root / ".lock", f"the releases in {self.root}", patience):
            self._prepare()
            yield

    def path(self, number: int) -> Path:
        """Where a release is."""
        return self.releases / str(number)

    def numbers(self) -> list[int]:
        """Numbers of all releases on disk, ascending."""
        if not self.releases.is_dir():
            return []
        return sorted(int(p.name) for p in self.releases.iterdir() if p.name.isdigit() and p.is_dir())

    def current(self) -> int:
        """Number of the release in service; 0 when there is none."""
        try:
            name = Path(os.readlink(self.link)).name
        except OSError:
            return 0
        return int(name) if name.isdigit() and self.path(int(name)).is_dir() else 0

    def manifest(self, number: int) -> dict[str, Any]:
        """The manifest of a release; {} when there is none."""
        return read_json(self.path(number) / "manifest.json") if number else {}

    def state(self) -> dict[str, Any]:
        """What is remembered: `last` number given, `previous` release, `proved` numbers."""
        return {"last": 0, "previous": 0, "proved": [], **read_json(self.state_file)}

    def damaged(self, number: int) -> list[str]:
        """Files of a release that are not as its manifest says (content or mode)."""
        bad = []
        for path, digest in self.manifest(number).get("files", {}).items():
            file = self.path(number) / path
            try:
                found = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
                good = found == digest and stat.S_IMODE(file.stat().st_mode) == file_mode(path)
            except OSError:
                good = False
            if not good:
                bad.append(path)
        return bad

    def next_number(self) -> int:
        """A number that was never used."""
        return int(max([0, self.state()["last"], self.current(), *self.numbers()])) + 1

    def leftover(self, digest: str) -> int:
        """A release of this content that a killed run wrote and that is not in service; 0 when there is none.

        Releases above `current` that were never proved and have another content are removed: nobody goes back to them.
        """
        current, proved = self.current(), self.state()["proved"]
        found = 0
        for number in self.numbers():
            if number <= current or number in proved:
                continue
            if self.manifest(number).get("digest") == digest and not self.damaged(number):
                found = number
            else:
                shutil.rmtree(self.path(number))
        return found

    def stage(self, number: int, files: dict[str, str], document: dict[str, Any]) -> Path:
        """Write a release where nobody looks; returns the directory, to be checked and then published."""
        folder = self.releases / f".staged-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        for place, mode in ((folder, 0o755), (folder / "env", 0o700)):
            place.mkdir()
            place.chmod(mode)
        for path, text in files.items():
            write_file(folder / path, text, file_mode(path))
        write_file(folder / "manifest.json", json.dumps(document, indent=2, sort_keys=True) + "\n", 0o644)
        _sync_directory(folder)
        return folder

    def publish(self, number: int) -> Path:
        """Give a staged release its name."""
        os.rename(self.releases / f".staged-{number}", self.path(number))
        _sync_directory(self.releases)
        self._remember(last=number)
        return self.path(number)

    def put_back(self, number: int, files: dict[str, str], paths: list[str]) -> None:
        """Undo somebody's changes to files of a release: write again what its manifest says."""
        (self.path(number) / "env").mkdir(mode=0o700, exist_ok=True)
        for path in paths:
            write_file(self.path(number) / path, files[path], file_mode(path))

    def promote(self, number: int) -> None:
        """Make a proved release the current one. The record comes first: a proof without a link is made up for."""
        current = self.current()
        state = self.state()
        previous = current if current and current != number else int(state["previous"])
        self._remember(proved=sorted({*state["proved"], number}), previous=previous)
        temporary = self.root / f".current.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        os.symlink(os.path.join("releases", str(number)), temporary)
        os.replace(temporary, self.link)
        _sync_directory(self.root)

    def reject(self, number: int) -> Path:
        """Take a refused release out of the row; only the last such one is kept, for the operator to look at."""
        place = self.releases / ".failed"
        shutil.rmtree(place, ignore_errors=True)
        os.rename(self.path(number), place)
        return place

    def prune(self, keep: int) -> list[int]:
        """Remove the oldest releases beyond `keep`, never the current or the previous one."""
        safe = {self.current(), int(self.state()["previous"])}
        numbers = self.numbers()
        surplus = [n for n in numbers if n not in safe][: max(0, len(numbers) - max(keep, len(safe)))]
        for number in surplus:
            shutil.rmtree(self.path(number))
        if surplus:
            self._remember(proved=[n for n in self.state()["proved"] if n not in surplus])
        return surplus

    def progress(self, text: str) -> None:
        """Leave a line for whoever watches from outside; a module cannot print."""
        write_file(self.progress_file, json.dumps({"at": int(time.time()), "step": text}) + "\n", 0o644)

    def _remember(self, **values: Any) -> None:
        document = {"schema": 1, **self.state(), **values}
        write_file(self.state_file, json.dumps(document, indent=2, sort_keys=True) + "\n", 0o644)
