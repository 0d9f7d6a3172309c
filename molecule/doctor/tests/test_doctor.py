"""The doctor says ok of a good host, and names what was broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testinfra.host import Host

from tests.support.plays import Play


def examine(host: Host, play: Play) -> dict[str, Any]:
    """Run the role again and return the answers by check id."""
    assert play().status == 0
    document = json.loads(host.file("/var/lib/redoubt/doctor.json").content_string)
    answers = {check["id"]: check for check in document["checks"]}
    assert document["ok"] is all(check["ok"] for check in answers.values())
    return answers


@contextmanager
def broken(host: Host, command: str, mend: str) -> Iterator[None]:
    """Break something for a while."""
    host.check_output(command)
    try:
        yield
    finally:
        host.check_output(mend)


def test_a_good_host_is_ok(host: Host, play: Play) -> None:
    assert [check for check in examine(host, play).values() if not check["ok"]] == []


def test_a_stopped_service_is_named(host: Host, play: Play) -> None:
    with broken(host, "systemctl stop docker.socket docker", "systemctl start docker"):
        answer = examine(host, play)["unit.docker"]
    assert answer["ok"] is False
    assert "inactive" in answer["detail"]
    assert "journalctl" in answer["remedy"]


def test_a_readable_secret_is_named(host: Host, play: Play) -> None:
    make = (
        "mkdir -p /etc/redoubt/secrets && touch /etc/redoubt/secrets/api.key && chmod 0644 /etc/redoubt/secrets/api.key"
    )
    with broken(host, make, "rm -r /etc/redoubt/secrets"):
        answer = examine(host, play)["secrets.modes"]
    assert answer["ok"] is False
    assert "/etc/redoubt/secrets/api.key" in answer["detail"]


def test_configuration_changed_by_hand_is_named(host: Host, play: Play) -> None:
    change = "cp -a /etc/docker/daemon.json /var/tmp/daemon.json && echo >> /etc/docker/daemon.json"
    with broken(host, change, "mv /var/tmp/daemon.json /etc/docker/daemon.json"):
        answer = examine(host, play)["config.drift"]
    assert answer["ok"] is False
    assert "/etc/docker/daemon.json" in answer["detail"]
