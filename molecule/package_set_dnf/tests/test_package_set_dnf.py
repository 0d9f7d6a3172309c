"""DNF's way through package_set, with DNF itself: module streams, one transaction, locks, keys, older versions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support.plays import Play

OLD, NEWER, NEXT = "580.95.05", "580.126.20", "595.71.05"
SET = (
    "nvidia-driver-cuda",
    "nvidia-driver-cuda-libs",
    "nvidia-kmod-common",
    "nvidia-modprobe",
    "nvidia-persistenced",
    "kmod-nvidia-open-dkms",
    "nvidia-fabricmanager",
    "libnvidia-nscq",
)
LOCKS = "/etc/dnf/plugins/versionlock.list"
STREAM = "/etc/dnf/modules.d/nvidia-driver.module"
LEFT = "/etc/yum.repos.d/cuda-rhel9.repo"


def versions(host: Host) -> set[str]:
    return set(host.check_output(f"rpm -q --qf '%{{VERSION}}\\n' {' '.join(SET)}").split())


def transactions(host: Host) -> int:
    """Number of the last one."""
    rows = re.findall(r"^\s*(\d+) \|", host.check_output("dnf -q history list"), re.MULTILINE)
    return max(map(int, rows))


@pytest.fixture(autouse=True)
def _as_converged(play: Play) -> Iterator[None]:
    yield
    assert play().status == 0


def test_the_set_came_in_one_transaction(host: Host) -> None:
    assert versions(host) == {OLD}
    assert transactions(host) == 2  # the plugin that locks comes before
    told = host.check_output("dnf -q history info 2")
    assert [name for name in (*SET, "datacenter-gpu-manager-4-core", "kernel-headers") if f" {name}-" not in told] == []
    assert host.file(STREAM).contains("stream=580-open")


def test_locked_packages_stay_and_released_ones_move(host: Host, play: Play) -> None:
    host.check_output("dnf -y -q upgrade")
    assert versions(host) == {OLD}
    assert play(hold=False).status == 0
    assert host.run(f"grep -c nvidia {LOCKS}").stdout.strip() == "0"
    host.check_output("dnf -y -q upgrade")
    assert versions(host) == {NEWER}
    assert play().status == 0  # and back to what is wished, as DNF does when it is told a version
    assert versions(host) == {OLD}
    assert all(host.file(LOCKS).contains(f"^{name}-3:{OLD}-1.el9") for name in SET)


def test_next_branch_and_back(host: Host, play: Play) -> None:
    before = transactions(host)
    assert play(version=NEXT).status == 0
    assert versions(host) == {NEXT}
    assert transactions(host) == before + 1
    assert host.file(STREAM).contains("stream=595-open")
    assert all(host.file(LOCKS).contains(f"^{name}-3:{NEXT}-1.el9") for name in SET)
    assert not host.file(LOCKS).contains(OLD)
    again = play(version=NEXT)
    assert (again.status, again.changed) == (0, 0)
    assert play().status == 0
    assert versions(host) == {OLD}
    assert host.file(STREAM).contains("stream=580-open")


def test_version_that_is_not_there_is_refused(host: Host, play: Play) -> None:
    run = play(version="580.1.1")
    assert run.status != 0
    assert "Unable to find a match" in run.words
    assert versions(host) == {OLD}


def test_key_of_somebody_else_is_refused(host: Host, play: Play) -> None:
    run = play(fingerprint="A" * 40)
    assert run.status != 0
    assert f"expected {'A' * 40}" in run.words
    assert "Nothing was changed" in run.words


def test_package_of_somebody_else_is_refused(host: Host, play: Play) -> None:
    run = play("stranger.yml")
    host.check_output("rm -f /etc/yum.repos.d/stranger.repo")
    assert run.status != 0
    assert "nvidia-settings" in run.words
    assert "GPG" in run.words
    assert host.run("rpm -q nvidia-settings").rc != 0


def test_other_module_is_refused(host: Host, play: Play) -> None:
    host.check_output("dnf -y -q install kmod-nvidia-latest-dkms")
    run = play()
    host.check_output("dnf -y -q remove kmod-nvidia-latest-dkms")
    assert run.status != 0
    assert "in conflict with" in run.words
    assert "kmod-nvidia-latest-dkms" in run.words


def test_source_of_an_earlier_installation_is_refused(host: Host, play: Play) -> None:
    host.check_output(f"printf '[old]\\nname=old\\nbaseurl=file:///opt/stub-rpm/rhel9/x86_64\\ngpgcheck=0\\n' > {LEFT}")
    run = play()
    host.check_output(f"rm {LEFT}")
    assert run.status != 0
    assert LEFT in run.words
