"""The playbooks of the depot, run on this machine: a depot in a folder of the test, without root."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.plays import Run
from tests.support.preflight_runs import playbook


def play(folder: Path, name: str, depot: Path, *options: str, **variables: Any) -> Run:
    """Run a playbook of the project on a host `vault` of the group depot, which is this machine."""
    inventory = folder / "vault.json"
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    host = {**here, "depot_directory": str(depot)}
    inventory.write_text(json.dumps({"all": {"children": {"depot": {"hosts": {"vault": host}}}}}), encoding="utf-8")
    done: subprocess.CompletedProcess[str] = playbook(
        "-i", str(inventory), f"playbooks/{name}.yml", *options, **variables
    )
    return Run(done.returncode, done.stdout)


def told(run: Run) -> str:
    """What the debug task of the playbook said."""
    return " ".join(re.findall(r'"msg": "(.*)"', run.text))


def files(root: Path) -> Mapping[str, tuple[int, int]]:
    """Inode and time of everything below a folder: what differs after a run was written by it."""
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in sorted(root.rglob("*"))}
