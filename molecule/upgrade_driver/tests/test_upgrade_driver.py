"""The driver of two hosts goes up and down again while requests and streams flow; and each way to fail.

The tests run in this order, and each goes on where the one before ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from testinfra.host import Host

from lab import gpus
from tests.support.plays import Play
from tests.support.pool import CONF, LOG, MARK, Pool, statuses, whole

UPGRADE = "../../playbooks/upgrade_driver.yml"
GATEWAY, A, B = "molecule-upgrade-gw", "molecule-upgrade-a", "molecule-upgrade-b"
OLD, NEW = "580.126.20", "595.71.05"
SET = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libnvidia-ml1", "nvidia-fabricmanager", "libnvidia-nscq")
POOL = Pool(GATEWAY, A, B)
COMMAND = f"./redoubt play upgrade_driver -i {POOL.inventory.parent}"
testinfra_hosts = [f"ansible://{GATEWAY}"]


def driver(name: str) -> tuple[set[str], str]:
    """Versions of the installed set, and of the loaded module."""
    host = POOL.other(name)
    loaded = str(host.file("/sys/module/nvidia/version").content_string).strip()
    return {str(host.package(package).version).partition("-")[0] for package in SET}, loaded


def pooled(host: Host) -> list[str]:
    """The hosts that the gateway sends requests to."""
    text = host.file(CONF).content_string
    return [name for name in (A, B) if f"server {POOL.address(name)}:8101 max_fails" in text]


def marks(host: Host) -> dict[str, str]:
    """Drained hosts and why, as the gateway knows them."""
    file = host.file(MARK)
    return {name: mark["reason"] for name, mark in json.loads(file.content_string).items()} if file.exists else {}


def started(name: str) -> str:
    """When the host's systemd began its work."""
    return str(POOL.other(name).check_output("systemctl show --property=UserspaceTimestamp --value"))


@contextmanager
def live(host: Host) -> Iterator[None]:
    """Short requests and long streams all the while; at the end each was answered whole, by both hosts in turn."""
    lines = int(host.check_output("wc -l < " + LOG))
    with POOL.traffic(2, 0.1) as short, POOL.traffic(3, 0.1, stub_events=40) as long:
        yield
    assert statuses(short) == {200}
    assert statuses(long) == {200}
    assert all(whole(answer) for answer in long)
    after = host.check_output(f"tail -n +{lines + 1} {LOG}").splitlines()
    assert {json.loads(line)["upstream"] for line in after} >= {f"{POOL.address(name)}:8101" for name in (A, B)}


def serves(name: str) -> bool:
    """Whether the engine's container runs."""
    return bool(POOL.other(name).check_output("docker inspect -f '{{.State.Status}}' redoubt-small") == "running")


def test_both_serve_with_gpus(host: Host) -> None:
    assert driver(A) == driver(B) == ({OLD}, OLD)
    assert pooled(host) == [A, B]
    assert POOL.ask()["status"] == 200
    inside = POOL.other(A).check_output("docker exec redoubt-small nvidia-smi -L")
    assert inside.count("GPU ") == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "version is not set"),
        ({"version": "595.71.50"}, "lack nvidia-driver-pinning-595.71.50"),
        ({"version": NEW, "upgrade_hosts": "molecule-upgrade-x"}, "no host of the group inference fits"),
    ],
)
def test_words_that_cannot_be_meant(host: Host, play: Play, words: dict[str, Any], said: str) -> None:
    run = play(UPGRADE, **words)
    assert run.status != 0
    assert said in run.words
    assert run.changed == 0
    assert marks(host) == {}


def test_last_endpoint_is_refused_before_any_host_is_touched(host: Host, play: Play) -> None:
    POOL.other(B).check_output("docker pause redoubt-small")
    run = play(UPGRADE, version=NEW)
    POOL.other(B).check_output("docker unpause redoubt-small")
    assert run.status != 0
    assert f"small would be left without an endpoint if {A} were drained" in run.words
    assert marks(host) == {}
    assert driver(A) == ({OLD}, OLD)


def test_check_mode_changes_nothing(host: Host, play: Play) -> None:
    run = play(UPGRADE, check=True, version=NEW, upgrade_hosts=B)
    assert run.status == 0
    assert f"{B}: {OLD} -> {NEW}" in run.words
    assert marks(host) == {}
    assert driver(B) == ({OLD}, OLD)
    assert pooled(host) == [A, B]


def test_a_host_that_fails_its_proof_stops_the_fleet(host: Host, play: Play) -> None:
    """Leaves A drained, with the new driver."""
    gpus.set_faults(A, fabric="In Progress")
    run = play(UPGRADE, timeout=900, version=NEW, nvidia_driver_fabric_timeout=5)
    gpus.set_faults(A, fabric=None)
    assert run.status != 0
    assert f"{A}: driver {OLD} -> {NEW} failed at 'Wait until the GPUs can be used'" in run.words
    assert "the fabric is In Progress" in run.words
    assert f"{A} is drained and gets no requests. Done before: none. Not touched: {B}." in run.words
    assert f"To go on: {COMMAND} -e version={NEW}" in run.words
    assert f"To go back: {COMMAND} -e version={OLD} -e upgrade_hosts={A}" in run.words
    assert pooled(host) == [B]
    assert marks(host) == {A: f"driver {OLD} -> {NEW}"}
    assert not serves(A)
    assert (driver(A), driver(B)) == (({NEW}, NEW), ({OLD}, OLD))
    assert POOL.ask()["status"] == 200


def test_up_under_live_requests(host: Host, play: Play) -> None:
    """Goes on where the run before ended."""
    POOL.other(B).check_output("systemctl enable --now nvidia-dcgm")
    boots = started(A), started(B)
    with live(host):
        run = play(UPGRADE, timeout=900, version=NEW)
    assert run.status == 0
    assert (driver(A), driver(B)) == (({NEW}, NEW), ({NEW}, NEW))
    assert pooled(host) == [A, B]
    assert marks(host) == {}
    assert (started(A), started(B)) == boots, "no restart was needed"
    assert POOL.other(B).service("nvidia-dcgm").is_running
    assert f"Now set nvidia_driver_version: {NEW} for {A}, {B} in" in run.words
    for name in (A, B):
        # The image has a shell, and hardly more.
        command = "docker exec redoubt-small sh -c 'echo /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.*'"
        inside = POOL.other(name).check_output(command)
        assert f"libnvidia-ml.so.{NEW}" in inside


def test_the_same_again_changes_nothing(host: Host, play: Play) -> None:
    assert marks(host) == {}
    run = play(UPGRADE, version=NEW)
    assert (run.status, run.changed) == (0, 0)
    assert f"{A}: has {NEW} already" in run.words
    assert "Leave the pool" not in run.words


def test_a_restart_that_is_not_allowed_stops_the_fleet_and_the_way_back_works(host: Host, play: Play) -> None:
    """Leaves the new driver on both hosts, and a process that holds a GPU on A."""
    POOL.other(A).check_output("systemd-run --quiet --collect --unit holder sh -c 'exec sleep 100000 3</dev/nvidia0'")
    before = started(A)
    run = play(UPGRADE, timeout=900, version=OLD)
    assert run.status != 0
    assert f"driver {NEW} is loaded, {OLD} is wanted" in run.words
    assert "Module nvidia is in use. GPUs are open in process" in run.words
    assert "nvidia_driver_reboot is never" in run.words
    assert f"To go back: {COMMAND} -e version={NEW} -e upgrade_hosts={A}" in run.words
    assert pooled(host) == [B]
    assert not serves(A)
    assert started(A) == before
    assert POOL.ask()["status"] == 200
    back = play(UPGRADE, timeout=900, version=NEW, upgrade_hosts=A)
    assert back.status == 0
    assert driver(A) == ({NEW}, NEW)
    assert pooled(host) == [A, B]
    assert marks(host) == {}


def test_down_under_live_requests_with_a_restart(host: Host, play: Play) -> None:
    before = started(A), started(B)
    with live(host):
        run = play(UPGRADE, timeout=900, version=OLD, nvidia_driver_reboot="when_needed")
    assert run.status == 0
    assert "Module nvidia is in use" in run.words
    assert (driver(A), driver(B)) == (({OLD}, OLD), ({OLD}, OLD))
    assert pooled(host) == [A, B]
    assert started(A) != before[0], "A was to restart"
    assert started(B) == before[1], "B had no reason to restart"
    assert "Now set nvidia_driver_version" not in run.words
