"""A task that takes long is named while it works, in a plain ansible-playbook run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import yaml

from callback_plugins.still_running import FIRST, LONGEST, Running

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_task_is_never_named() -> None:
    running = Running()
    running.start("Short", "a", 0)
    assert running.lines(FIRST - 0.1) == []
    running.end("Short", "a")
    assert running.lines(1000) == []


def test_a_long_one_is_named_ever_less_often_but_once_a_minute() -> None:
    running = Running()
    running.start("Long", "a", 0)
    said = [second for second in range(400) if running.lines(second)]
    assert said[:5] == [5, 10, 20, 40, 80]
    assert {later - earlier for earlier, later in pairwise(said[4:])} == {LONGEST}


def test_only_hosts_that_work_still_are_named() -> None:
    running = Running()
    for host in ("e", "d", "c", "b", "a"):
        running.start("Long", host, 0)
    assert running.lines(6) == ["still running on a, b, c and 2 more: Long (6 s)"]
    for host in ("a", "b", "c", "e"):
        running.end("Long", host)
    assert running.lines(20) == ["still running on d: Long (20 s)"]


def test_the_same_name_later_begins_anew() -> None:
    running = Running()
    running.start("Long", "a", 0)
    running.end("Long", "a")
    running.start("Long", "a", 100)
    assert running.lines(104) == []
    assert running.lines(105) == ["still running on a: Long (5 s)"]


def test_an_unknown_end_is_no_fault() -> None:
    running = Running()
    running.end("never begun", "a")
    assert running.lines(10) == []


def test_plain_playbook_run_names_the_task_while_it_works(tmp_path: Path) -> None:
    """The task ends when its name was said, so a silent run never ends well."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    wait = {"name": "Wait for the test", "ansible.builtin.command": f"timeout 60 cat {gate}", "changed_when": False}
    play = {"hosts": "all", "gather_facts": False, "become": False, "tasks": [wait]}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "h1,", "-c", "local"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    process = subprocess.Popen(
        [*command, str(tmp_path / "play.yml")],
        cwd=ROOT,
        env={**environment, "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        if line.startswith("still running"):
            gate.write_text("go on")
    assert process.wait() == 0, "".join(output)
    assert any(re.fullmatch(r"still running on h1: Wait for the test \(\d+ s\)\n", line) for line in output)
