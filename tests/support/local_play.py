"""A plain ansible-playbook run on this machine, read line by line while it works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


def start_play(folder: Path, tasks: Sequence[Mapping[str, Any]]) -> subprocess.Popen[str]:
    """Start a play of these tasks for the host h1, which is this machine; what it prints is in `stdout`."""
    play = {"hosts": "all", "gather_facts": False, "become": False, "tasks": list(tasks)}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "h1,", "-c", "local"]
    # What the tests' own caller set is not what an operator has.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.Popen(
        [*command, str(folder / "play.yml")],
        cwd=REPOSITORY,
        env={**environment, "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
