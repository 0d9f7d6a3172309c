"""What the `containers` probe says of what Docker reports (a real engine is asked in the molecule scenarios)."""

from __future__ import annotations

import socket

import pytest

from module_utils import probes
from module_utils.probes import ContainerState

GOOD = ContainerState("web", "running", "0", "2026-01-01T00:00:00Z", "sha256:aa", "sha256:aa")


def test_a_running_container_on_its_image_is_good() -> None:
    assert GOOD.problem() is None
    assert GOOD.problem(GOOD) is None


def test_a_container_that_is_not_running_is_named() -> None:
    for status in ("missing", "restarting", "exited", "created", "paused", "dead"):
        assert ContainerState("web", status).problem() == f"container web is {status}"


def test_a_container_on_an_older_image_is_seen() -> None:
    stale = ContainerState("web", "running", "0", "t", "sha256:aa", "sha256:bb")
    assert "runs sha256:aa, but its image's name now means sha256:bb" in str(stale.problem())


def test_an_image_name_that_is_gone_is_seen() -> None:
    assert ContainerState("web", "running", "0", "t", "sha256:aa", "no image").problem()


def test_a_restart_between_two_looks_is_a_crash_loop() -> None:
    by_count = ContainerState("web", "running", "3", GOOD.started, "sha256:aa", "sha256:aa")
    by_time = ContainerState("web", "running", "0", "2026-01-01T00:00:09Z", "sha256:aa", "sha256:aa")
    assert "does not stay up" in str(by_count.problem(GOOD))
    assert "does not stay up" in str(by_time.problem(GOOD))


def test_a_port_that_stays_closed_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "container_states", lambda _names: [ContainerState("web", "restarting")])
    monkeypatch.setattr(probes, "_last_words", lambda _name: "its last words: no such option")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = probes.ask_until([{"containers": ["web"]}, {"tcp": f"127.0.0.1:{port}"}], 0, 0)
    assert said is not None
    assert f"127.0.0.1:{port}" in said
    assert said.endswith("container web is restarting; its last words: no such option")
