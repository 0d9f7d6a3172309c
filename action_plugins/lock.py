"""Action of the lock's folder on the control host: reads it, or makes it of what was resolved; no connection.

state: read    returns the lock, its package lists, and (with `project_folder`) the file of the project's own tree
state: made    writes the folder where anything differs; with --check only says what would

Both know the folder as `folder`, relative to the project. What else `made` takes: locks.make.Wishes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))

from locks import folder as files
from locks import project
from locks.make import Wishes, make
from planner.plain import plain

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip
from ansible.module_utils.fetch.http import Network  # isort: skip
from ansible.module_utils.lock.changes import lines  # isort: skip

ROOT = Path(__file__).resolve().parents[1]


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Reads or makes a lock; see the module's text."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {lock, indexes, project} or {changed, changes, newer, files, serial, digest}."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = plain(self._task.args)
        states = {"read": self._read, "made": self._made}
        state = arguments.pop("state", "read")
        if state not in states:
            raise AnsibleError(f"lock: state is {state!r}, not one of {', '.join(states)}")
        folder = ROOT / str(arguments.pop("folder", None) or "lock")
        try:
            return result | states[state](folder, arguments)
        except Refusal as refusal:
            return result | {"failed": True, "msg": str(refusal)}
        except OSError as error:
            return result | {"failed": True, "msg": f"{error.filename or folder}: {error.strerror or error}"}

    @staticmethod
    def _read(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        lock = files.load(folder)
        indexes = {
            f"{platform}/{item['path']}": files.read_index(folder, platform, item).decode()
            for platform, row in lock["platforms"].items()
            for item in row["indexes"]
        }
        written = ""
        if lock["project"] and arguments.get("project_folder"):
            written = str(_project(lock["project"], Path(arguments["project_folder"])))
        return {"changed": False, "lock": lock, "indexes": indexes, "project": written}

    def _made(self, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        network = Network(**arguments.pop("network", {}))
        try:
            wishes = Wishes(**arguments)
        except TypeError as error:
            raise AnsibleError(f"lock: {error}") from None
        made = make(wishes, ROOT, folder, network)
        changed = files.write(folder, made.lock, made.indexes, check=self._task.check_mode)
        head = {key: made.lock[key] for key in ("site", "serial", "digest")}
        said = lines(made.changes)
        return {"changed": bool(changed), "changes": said, "newer": made.newer, "files": changed, **head}


def _project(locked: dict[str, Any], folder: Path) -> Path:
    """Write the project's own tree as the lock names it; return its file. Raises Refusal."""
    data = project.tar(project.locked_tree(ROOT, locked))
    found = project.row(project.locked_tree(ROOT, locked), data)
    if found["sha256"] != locked["sha256"]:
        raise Refusal(
            f"the project's tree {locked['commit']} gives sha256 {found['sha256']}, the lock has {locked['sha256']};"
            " make the lock again: ./redoubt play lock"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(locked["file"])
    path.write_bytes(data)
    return path
