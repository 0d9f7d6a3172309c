"""The host's figures: on loopback only, from a container that can change nothing, and put back when it is harmed."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

from tests.support.plays import Play

CONTAINER = "redoubt-node-exporter"


def figures(host: Host) -> list[str]:
    """The lines of the exposition."""
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/metrics', timeout=20).read().decode())"
    text: str = host.check_output("python3 -c %s", script)
    return text.splitlines()


def inspected(host: Host) -> dict[str, Any]:
    """The container as Docker describes it."""
    described: list[dict[str, Any]] = json.loads(host.check_output("docker inspect %s", CONTAINER))
    return described[0]


def test_textfile_figures_are_exported(host: Host) -> None:
    host.check_output("echo 'redoubt_test_figure 7' > /var/lib/redoubt/textfile/test.prom")
    assert "redoubt_test_figure 7" in figures(host)
    host.check_output("rm /var/lib/redoubt/textfile/test.prom")


def test_disks_of_the_host_are_seen_and_not_those_of_containers(host: Host) -> None:
    sizes = [line for line in figures(host) if line.startswith("node_filesystem_size")]
    mounts = {line.split('mountpoint="')[1].split('"')[0] for line in sizes}
    # The host's own / is an overlay in the lab, a kind that is left out everywhere; its data volume is a real one.
    assert "/var/lib/docker" in mounts
    assert not [mount for mount in mounts if mount.startswith(("/host", "/var/lib/docker/", "/proc"))]


def test_it_listens_on_loopback_only(host: Host) -> None:
    sockets = host.check_output("ss -Hltn 'sport = :9100'").split()
    assert "127.0.0.1:9100" in sockets
    assert not [word for word in sockets if word.startswith(("0.0.0.0:9100", "*:9100", "[::]:9100"))]


def test_the_container_can_change_nothing(host: Host) -> None:
    settings = inspected(host)["HostConfig"]
    assert settings["ReadonlyRootfs"] is True
    assert settings["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in settings["SecurityOpt"]
    assert settings["Memory"] == 128 << 20
    (mount,) = inspected(host)["Mounts"]
    assert (mount["Source"], mount["RW"]) == ("/", False)
    assert inspected(host)["Config"]["User"] == "65534:65534"


def test_a_public_address_is_refused_and_nothing_changes(host: Host, play: Play) -> None:
    before = inspected(host)["Id"]
    run = play(node_exporter_address="0.0.0.0")  # noqa: S104 - shall be refused
    assert run.status != 0
    assert run.changed == 0
    assert "neither loopback nor private" in run.words
    assert inspected(host)["Id"] == before


def test_a_stopped_container_is_started_again(host: Host, play: Play) -> None:
    host.check_output("docker stop %s", CONTAINER)
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert figures(host)


def test_an_exporter_that_ends_at_once_is_red_and_the_old_one_is_back(host: Host, play: Play) -> None:
    run = play(node_exporter_extra_options=["--no-such-option"])
    assert run.status != 0
    assert f"container {CONTAINER}" in run.words
    assert "no-such-option" in run.words
    assert "the previous configuration is back and running" in run.words
    assert figures(host)
    again = play()
    assert (again.status, again.changed) == (0, 0)


def test_an_image_that_is_not_there_is_red_and_asked_of_nobody(host: Host, play: Play) -> None:
    run = play(image="redoubt.lab/node-exporter:0.0.0")
    assert run.status != 0
    assert "the previous configuration is back and running" in run.words
    assert play().changed == 0


def test_options_reach_the_exporter(host: Host, play: Play) -> None:
    assert any(line.startswith("node_load1 ") for line in figures(host))
    try:
        assert play(node_exporter_extra_options=["--no-collector.loadavg"]).status == 0
        assert not any(line.startswith("node_load1 ") for line in figures(host))
    finally:
        assert play().status == 0
