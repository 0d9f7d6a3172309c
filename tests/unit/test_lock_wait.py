"""The action of the modules that hold a lock: an operator sees whom a run waits for, with plain ansible-playbook."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible.module_utils.run_lock import only_run

from action_plugins import lock_wait

REPO = Path(__file__).resolve().parents[2]
MODULES = ("bundle", "config_set", "container_images", "conversion", "depot", "release", "weights")


def start(tmp_path: Path, lock_timeout: int) -> subprocess.Popen[str]:
    """config_set on this machine, with what it shows in a pipe."""
    arguments = {"name": "demo", "state_dir": str(tmp_path / "state"), "lock_timeout": lock_timeout}
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_become=false"]
    command += ["-m", "config_set", "-a", json.dumps(arguments)]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_wait_is_shown_and_then_the_work_is_done(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    shown: list[str] = []
    with only_run(tmp_path / "state/.demo.lock", "the test", 0):
        run = start(tmp_path, 300)
        # A run that shows nothing would never end this wait, so it is ended.
        watch = threading.Timer(120, run.kill)
        watch.start()
        assert run.stdout is not None
        for line in run.stdout:
            shown.append(line)
            if "waits for another run" in line:
                break
    rest, _ = run.communicate()
    watch.cancel()
    assert f"localhost: waits for another run (process {os.getpid()} of " in shown[-1]
    assert ": the test); " in shown[-1]
    assert shown[-1].endswith("of at most 300 s\n")
    assert run.returncode == 0, rest


def test_a_wait_that_is_too_long_says_how_long_it_was(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with only_run(tmp_path / "state/.demo.lock", "the test", 0):
        said, _ = start(tmp_path, 1).communicate(timeout=120)
    assert "is working on the configuration of demo on this host; let it end, then run again (waited " in said


@pytest.mark.parametrize("name", MODULES)
def test_every_module_with_a_lock_has_the_action(name: str) -> None:
    action = importlib.import_module(f"action_plugins.{name}").ActionModule
    assert issubclass(action, lock_wait.ActionModule)


def test_no_module_with_a_lock_is_left_out() -> None:
    holding = {path.stem for path in (REPO / "library").glob("*.py") if '"lock_timeout":' in path.read_text()}
    assert holding == set(MODULES)
