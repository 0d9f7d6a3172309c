"""The edge: a folder that stands for /, and the few commands that may be run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import NamedTuple, Optional

ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Answer(NamedTuple):
    """What a command said; code None: it ran out of time."""

    code: Optional[int]
    text: str


class Host:
    """A root folder, where to look for commands (None: run none, as in an image), and the time for all commands."""

    def __init__(self, root: str = "/", search: Optional[str] = None, seconds: float = 60) -> None:
        self.root = root
        self.search = search
        self._end = time.monotonic() + seconds

    def path(self, path: str) -> str:
        """The place of an absolute path under the root."""
        return os.path.join(self.root, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        """Whether there is something at the path."""
        return os.path.exists(self.path(path))

    def read(self, path: str, limit: int = 1 << 20) -> Optional[str]:
        """Up to `limit` bytes of a file as text without blanks around it; None where it cannot be read."""
        data = self.read_bytes(path, limit)
        return None if data is None else data.decode("utf-8", "replace").strip()

    def read_bytes(self, path: str, limit: int = 1 << 20) -> Optional[bytes]:
        """Up to `limit` bytes of a file; None where it cannot be read."""
        try:
            with open(self.path(path), "rb") as file:
                return file.read(limit)
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted; empty where there is none."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def link_name(self, path: str) -> Optional[str]:
        """The last part of where a symbolic link leads; None where there is no link."""
        try:
            return os.path.basename(os.readlink(self.path(path)))
        except OSError:
            return None

    def run(self, command: str, *arguments: str) -> Optional[Answer]:
        """Run a command and return its answer, stdout and stderr together; None where it cannot be run."""
        found = shutil.which(command, path=self.search) if self.search is not None else None
        left = self._end - time.monotonic()
        if found is None:
            return None
        try:
            process = subprocess.Popen(
                [found, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": self.search or "", "LC_ALL": "C"},
            )
        except OSError:
            return None
        try:
            said, _ = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            # Not waited for: a process that a hung GPU holds in the kernel does not end when it is killed.
            process.kill()
            return Answer(None, "")
        return Answer(process.returncode, said.decode("utf-8", "replace"))
