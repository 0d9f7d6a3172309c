"""A task that takes long is named while it works, in a plain ansible-playbook run."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from callback_plugins.still_running import FIRST, LONGEST, Running
from tests.support.local_play import start_play


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
    process = start_play(tmp_path, [wait])
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        output.append(line)
        if line.startswith("still running"):
            gate.write_text("go on")
    assert process.wait() == 0, "".join(output)
    assert any(re.fullmatch(r"still running on h1: Wait for the test \(\d+ s\)\n", line) for line in output)
