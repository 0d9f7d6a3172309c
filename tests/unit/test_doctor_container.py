"""What the doctor says of an engine's container: Docker itself is played by a `docker` that tells its lines in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import checks
from ansible.module_utils.checks import examine

CHECK = {"id": "engine.m.container", "kind": "container", "container": "redoubt-m", "remedy": "serve"}
Play = Callable[..., Path]


def _container(health: str | None, **state: Any) -> dict[str, Any]:
    found = {"Running": True, "Status": "running", "ExitCode": 0, "StartedAt": "2026-11-24T01:02:03.4Z", **state}
    if health:
        found["Health"] = {"Status": health}
    return {"State": found, "Image": "sha256:1", "NetworkSettings": {"Ports": {}}, "RestartCount": 0}


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A `docker` that answers `inspect` with these containers in turn, the last one again and again."""

    def prepare(*containers: dict[str, Any]) -> Path:
        asked = tmp_path / "asked"
        for number, container in enumerate(containers):
            (tmp_path / f"{number}.json").write_text(json.dumps([container]))
        docker = tmp_path / "docker"
        docker.write_text(
            f"#!/bin/sh\necho >>{asked}\nn=$(($(wc -l <{asked}) - 1))\n"
            f"[ $n -lt {len(containers)} ] || n={len(containers) - 1}\ncat {tmp_path}/$n.json\n"
        )
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return asked

    monkeypatch.setattr(checks, "HEALTH_PAUSE", 0.01)
    monkeypatch.setattr(checks, "HEALTH_ROUND", 0.2)
    return prepare


def test_dockers_verdict_is_waited_for(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "HEALTH_ROUND", 60)
    asked = play(_container("starting"), _container("starting"), _container("healthy"))
    answer = examine(CHECK)
    assert (answer["ok"], answer["detail"]) == (True, "running, healthy, restarted 0 times")
    assert len(asked.read_text().splitlines()) == 3


def test_one_that_goes_on_starting_is_told_with_its_age(play: Play) -> None:
    play(_container("starting"))
    answer = examine(CHECK)
    assert not answer["ok"]
    assert answer["detail"] == "container redoubt-m has run since 2026-11-24T01:02:03Z and is still starting"


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (_container("unhealthy"), "runs but is unhealthy"),
        (_container(None, Running=False, Status="exited", ExitCode=137), "is exited (exit 137)"),
        (_container("starting", Restarting=True, Status="restarting", ExitCode=1), "is restarting (exit 1)"),
    ],
)
def test_what_does_not_serve_is_not_good(play: Play, container: dict[str, Any], words: str) -> None:
    play(container)
    answer = examine(CHECK)
    assert not answer["ok"]
    assert answer["detail"].endswith(words)


def test_one_without_a_health_check_is_good_when_it_runs(play: Play) -> None:
    play(_container(None))
    assert examine(CHECK)["ok"]
