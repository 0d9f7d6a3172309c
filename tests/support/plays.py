"""Running a molecule scenario's play again from inside its tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Protocol


@dataclass(frozen=True)
class Run:
    """What a play did: exit status and everything it printed."""

    status: int
    text: str

    @property
    def changed(self) -> int:
        """Tasks that changed something, on all hosts."""
        return sum(int(count) for count in re.findall(r"\bchanged=(\d+)", self.text))

    @property
    def words(self) -> str:
        """The text with all white space folded, because long messages are wrapped."""
        return " ".join(self.text.split())


class Play(Protocol):
    """The type of the fixture `play`."""

    def __call__(
        self, playbook: str = "converge.yml", check: bool = False, timeout: float = 300, **variables: Any
    ) -> Run:
        """Run a playbook of the scenario; other keyword arguments are extra variables."""


def run_play(playbook: str = "converge.yml", check: bool = False, timeout: float = 300, **variables: Any) -> Run:
    """Run a playbook of the scenario that molecule is verifying, on its hosts. A failing play is a result too.

    Raises subprocess.TimeoutExpired.
    """
    scenario = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
    inventory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
    command = ["ansible-playbook", "-i", str(inventory), str(scenario / playbook), "--diff"]
    command += ["--check"] if check else []
    # Molecule asks for colours, whose codes would stand between the words that tests look for.
    plain = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    with NamedTemporaryFile("w", suffix=".json") as extra:  # 10,000 keys are too long for a command line
        json.dump(variables, extra)
        extra.flush()
        done = subprocess.run(
            [*command, "--extra-vars", f"@{extra.name}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            env=plain,
        )
    print(done.stdout)  # pytest shows it when the test fails
    return Run(done.returncode, done.stdout)
