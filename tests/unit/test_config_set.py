"""The module config_set, run for real through ansible on this machine, on paths below tmp_path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.run_lock import only_run

REPO = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the module once on the local machine; returns its result."""
    arguments.setdefault("name", "demo")
    arguments.setdefault("state_dir", str(tmp_path / "state"))
    arguments.setdefault("timeout", 1)
    arguments.setdefault("settle", 0)
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_become=false"]
    command += ["-m", "config_set", "-a", json.dumps(arguments), "--diff"] + (["--check"] if check else [])
    environment = {
        **os.environ,
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
    }
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False, timeout=90)
    document = json.loads(done.stdout[done.stdout.index("{") :])
    result: dict[str, Any] = document["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return result


@pytest.fixture
def me() -> dict[str, str]:
    """Owner and group that this process may set."""
    return {"owner": str(os.getuid()), "group": str(os.getgid())}


def test_second_run_changes_nothing_and_applies_nothing(tmp_path: Path, me: dict[str, str]) -> None:
    log = tmp_path / "applied"
    target = tmp_path / "etc/app.conf"
    call: dict[str, Any] = {
        "files": [{"path": str(target), "content": "a = 1\n", "mode": "0640", **me}],
        "apply": [["sh", "-c", f"echo x >> {log}"]],
    }
    assert run(tmp_path, **call)["changed"] is True
    assert target.read_text() == "a = 1\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert run(tmp_path, **call)["changed"] is False
    assert log.read_text() == "x\n"


def test_check_mode_writes_nothing_and_shows_the_difference(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "etc/app.conf"
    secret = tmp_path / "etc/key"
    result = run(
        tmp_path,
        check=True,
        files=[{"path": str(target), "content": "a = 1\n", **me}],
        secret_files=[{"path": str(secret), "content": "hunter2-hunter2", **me}],
        validate=[["a-program-that-is-not-there", "{staged}"]],
    )
    assert result["changed"] is True
    assert not target.exists()
    assert not secret.exists()
    assert "a = 1" in json.dumps(result["diff"])
    assert "hunter2" not in json.dumps(result)


def test_a_checker_that_refuses_leaves_the_live_file(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "app.conf"
    checker = [["grep", "-q", "good", "{staged}" + str(target)]]
    run(tmp_path, files=[{"path": str(target), "content": "good 1\n", **me}], validate=checker)
    result = run(tmp_path, files=[{"path": str(target), "content": "bad\n", **me}], validate=checker)
    assert result["failed"] is True
    assert "nothing live was changed" in result["msg"]
    assert target.read_text() == "good 1\n"


def test_a_failing_proof_puts_the_old_file_back_and_applies_it(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "app.conf"
    running = tmp_path / "running"
    call: dict[str, Any] = {
        "apply": [["cp", str(target), str(running)]],
        "probe": [{"command": ["grep", "-q", "good", str(running)]}],
    }
    run(tmp_path, files=[{"path": str(target), "content": "good 1\n", **me}], **call)
    result = run(tmp_path, files=[{"path": str(target), "content": "bad\n", **me}], **call)
    assert result["failed"] is True
    assert result["restored"] is True
    assert "the previous configuration is back and running" in result["msg"]
    assert target.read_text() == "good 1\n"
    assert running.read_text() == "good 1\n"
    again = run(tmp_path, files=[{"path": str(target), "content": "good 1\n", **me}], **call)
    assert again["changed"] is False, "what was restored and proved needs no further apply"


def test_the_old_set_is_proved_with_its_own_probes(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "app.conf"

    def has(text: str) -> list[dict[str, list[str]]]:
        return [{"command": ["grep", "-q", text, str(target)]}]

    run(tmp_path, files=[{"path": str(target), "content": "old\n", **me}], probe=has("old"))
    result = run(tmp_path, files=[{"path": str(target), "content": "new\n", **me}], probe=has("else"))
    assert target.read_text() == "old\n"
    assert "the previous configuration is back and running" in result["msg"]


def test_a_run_that_died_before_the_apply_is_made_up_for(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "app.conf"
    running = tmp_path / "running"
    call: dict[str, Any] = {"apply": [["cp", str(target), str(running)]]}
    run(tmp_path, files=[{"path": str(target), "content": "old\n", **me}], **call)
    # The killed run: the new file is on disk, the stamp is gone, the service still has the old one.
    target.write_text("new\n")
    target.chmod(0o644)
    (tmp_path / "state/demo.json").unlink()
    result = run(tmp_path, files=[{"path": str(target), "content": "new\n", **me}], **call)
    assert result["changed"] is True
    assert running.read_text() == "new\n"


def test_a_service_that_died_is_started_again(tmp_path: Path, me: dict[str, str]) -> None:
    alive = tmp_path / "alive"
    call: dict[str, Any] = {
        "files": [{"path": str(tmp_path / "c"), "content": "c\n", **me}],
        "apply": [["touch", str(alive)]],
        "probe": [{"command": ["test", "-e", str(alive)]}],
    }
    run(tmp_path, **call)
    alive.unlink()
    result = run(tmp_path, **call)
    assert result["changed"] is True
    assert alive.exists()


def test_a_first_configuration_that_fails_is_removed_again(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "app.conf"
    result = run(tmp_path, files=[{"path": str(target), "content": "x\n", **me}], probe=[{"tcp": "127.0.0.1:1"}])
    assert result["failed"] is True
    assert "127.0.0.1:1" in result["msg"]
    assert not target.exists()


def test_a_path_given_twice_is_refused(tmp_path: Path, me: dict[str, str]) -> None:
    row = {"path": str(tmp_path / "a"), "content": "", **me}
    assert "given twice" in run(tmp_path, files=[row, row])["msg"]


def test_two_runs_on_one_set_do_not_work_beside_each_other(tmp_path: Path, me: dict[str, str]) -> None:
    target = tmp_path / "app.conf"
    call: dict[str, Any] = {"files": [{"path": str(target), "content": "x\n", **me}], "lock_timeout": 0}
    (tmp_path / "state").mkdir()
    with only_run(tmp_path / "state/.demo.lock", "demo", 0):
        result = run(tmp_path, **call)
        assert run(tmp_path, check=True, **call)["changed"] is True
    assert result["failed"] is True
    assert f"another run (process {os.getpid()} of " in result["msg"]
    assert "is working on the configuration of demo on this host; let it end" in result["msg"]
    assert not target.exists()
    assert run(tmp_path, **call)["changed"] is True


def test_only_units_that_are_not_enabled_are_enabled(
    tmp_path: Path, me: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`systemctl enable` reloads systemd even where it has nothing to do, and a reload takes GPUs from containers."""
    log = tmp_path / "asked"
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {log}\n[ "$1" != is-enabled ] || [ "$3" = enabled.service ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    files = [{"path": str(tmp_path / "app.conf"), "content": "1\n", **me}]
    assert run(tmp_path, files=files, units=["enabled.service"])["changed"] is True
    assert log.read_text() == "is-enabled --quiet enabled.service\n"
    log.unlink()
    assert run(tmp_path, files=files, units=["enabled.service", "new.service"])["changed"] is True
    assert log.read_text().splitlines()[-1] == "enable --quiet new.service"


def test_unwanted_paths_go_and_links_come(tmp_path: Path, me: dict[str, str]) -> None:
    old = tmp_path / "default"
    old.write_text("hole\n")
    link = tmp_path / "current"
    call: dict[str, Any] = {"absent": [str(old)], "links": [{"path": str(link), "target": "releases/1"}]}
    assert run(tmp_path, **call)["changed"] is True
    assert not old.exists()
    assert os.readlink(link) == "releases/1"
    assert run(tmp_path, **call)["changed"] is False
