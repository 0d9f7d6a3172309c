"""Faults of packages and hardware: refused before the driver is touched, each with the command that clears it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from module_utils.openpgp import fingerprints
from tests.support.plays import Play

OLD, NEW = "580.126.20", "595.71.05"
SET = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libnvidia-ml1", "nvidia-fabricmanager", "libnvidia-nscq")
HARDWARE = "/etc/stub-nvidia/hardware.json"
PIN = "/etc/apt/preferences.d/nvidia-driver-pin"
SOURCE = "/etc/apt/sources.list.d/nvidia-docker.list"
KEY = "/etc/apt/keyrings/nvidia-driver.asc"
UPGRADER = "/etc/apt/apt.conf.d/99test"


def versions(host: Host) -> set[str]:
    return {str(host.package(name).version).partition("-")[0] for name in SET}


def held(host: Host) -> set[str]:
    return set(host.check_output("apt-mark showhold").split())


@contextmanager
def package(host: Host, name: str, depends: str, script: str = "") -> Iterator[None]:
    """A site's own package on the host, for a while; dpkg need not be content with it."""
    fields = {"Package": name, "Version": "1.0", "Architecture": "all", "Maintainer": "x <x@example.org>"}
    control = "".join(f"{key}: {text}\n" for key, text in {**fields, "Depends": depends, "Description": "test"}.items())
    folder = "/srv/p/DEBIAN"
    host.check_output("rm -rf /srv/p && mkdir -p %s && printf %%s %s > %s/control", folder, control, folder)
    if script:
        host.check_output("printf %%s %s > %s/postinst && chmod 755 %s/postinst", script, folder, folder)
    host.check_output("dpkg-deb --build /srv/p /srv/p.deb")
    host.run("dpkg --install /srv/p.deb")
    try:
        yield
    finally:
        host.run("apt-mark unhold %s", name)
        host.check_output("dpkg --force-all --purge %s", name)


def test_held_package_that_needs_the_old_version(host: Host, play: Play) -> None:
    with package(host, "site-agent", f"libnvidia-ml1 (= {OLD}-1)"):
        host.check_output("apt-mark hold site-agent")
        before = held(host)
        run = play("driver.yml", nvidia_driver_version=NEW)
        assert run.status != 0
        assert f"site-agent is held and needs libnvidia-ml1 (= {OLD}-1)" in run.words
        assert "'apt-mark unhold site-agent' and 'apt-get remove site-agent'" in run.words
        assert (versions(host), held(host)) == ({OLD}, before)
        # Not held, apt would take it away without a word.
        host.check_output("apt-mark unhold site-agent")
        run = play("driver.yml", nvidia_driver_version=NEW)
        assert run.status != 0
        assert "apt would remove site-agent for it" in run.words
        assert host.package("site-agent").is_installed
    assert versions(host) == {OLD}
    assert play("driver.yml").status == 0  # the pin is that of the old version again


@pytest.mark.parametrize(
    ("depends", "script", "words"),
    [
        (
            "no-such-package (>= 2)",
            "",
            [
                "packages of this host were broken before: other-agent needs no-such-package (>= 2)",
                "Run 'apt-get --fix-broken install'",
                "'apt-get remove other-agent'",
            ],
        ),
        (
            "dpkg",
            "#!/bin/sh\nexit 1\n",
            ["half installed, and dpkg cannot finish them: other-agent", "'dpkg --remove other-agent'"],
        ),
    ],
    ids=["unmet", "half-configured"],
)
def test_packages_that_were_broken_before(host: Host, play: Play, depends: str, script: str, words: list[str]) -> None:
    with package(host, "other-agent", depends, script):
        run = play("driver.yml", nvidia_driver_version=NEW)
    assert run.status != 0
    assert [word for word in words if word not in run.words] == []
    assert versions(host) == {OLD}


def upgrade(host: Host, *options: str) -> str:
    """What unattended-upgrade says."""
    done = host.run(f"unattended-upgrade --debug {' '.join(options)}")
    assert done.rc == 0, done.stdout
    return str(done.stdout + done.stderr)


def considered(said: str) -> set[str]:
    """Names of the packages that it looked at and did not skip."""
    skipped = re.findall(r"^skipping blacklisted package (\S+)", said, re.MULTILINE)
    return set(re.findall(r"^Checking: ([^ =]+)=", said, re.MULTILINE)) - set(skipped)


def test_unattended_upgrade_leaves_the_set_alone(host: Host, play: Play) -> None:
    # The real program, allowed to take all that NVIDIA's repository has and nothing of Debian. Without the pin, 595 is
    # the newest there.
    allow = (
        '#clear Unattended-Upgrade::Origins-Pattern;\nUnattended-Upgrade::Origins-Pattern { "label=NVIDIA CUDA"; };\n'
    )
    host.check_output("printf %%s %s > %s", allow, UPGRADER)
    host.check_output(f"mv {PIN} /var/tmp/pin && apt-get update")
    try:
        tried = upgrade(host, "--dry-run")
        upgrade(host)
        after = versions(host)
        # Without our list and the holds, it does take them.
        assert play("driver.yml", nvidia_driver_hold=False).status == 0
        host.check_output(f"rm -f {PIN}")
        loose = upgrade(host, "--dry-run")
    finally:
        host.check_output(f"mv /var/tmp/pin {PIN}; rm {UPGRADER}")
    assert play("driver.yml").status == 0
    assert after == {OLD}
    assert considered(tried) == set()
    assert "No packages found that can be upgraded unattended" in tried
    # What is not held because nobody asked for it by name is on the list.
    assert "skipping blacklisted package firmware-nvidia-gsp" in tried
    assert set(SET) <= held(host)
    assert considered(loose) >= set(SET)
    assert versions(host) == {OLD}


def test_maxwell_card_and_open_modules_only(host: Host, play: Play) -> None:
    hardware = json.loads(host.file(HARDWARE).content_string)
    card = hardware["gpus"][0] | {"device": "10de:13f2", "product": "Tesla M60", "mig_capable": False}
    changed = hardware | {"gpus": [card], "nvswitches": [], "fabric": None}
    host.check_output("cp %s /var/tmp/hardware.json && printf %%s %s > %s", HARDWARE, json.dumps(changed), HARDWARE)
    host.check_output("stub-nvidia refresh")
    try:
        new = play("driver.yml", nvidia_driver_version=NEW)
        wished = play("driver.yml", nvidia_driver_module="open")
    finally:
        host.check_output("mv /var/tmp/hardware.json %s && stub-nvidia refresh", HARDWARE)
    assert new.status != 0
    assert "Refused, nothing was changed." in new.words
    assert (
        "branch 595 has no driver for Tesla M60; 580 is the last one. Fix: write a version of branch 580." in new.words
    )
    assert wished.status != 0
    assert "NVIDIA's open modules do not drive Tesla M60. Fix: write auto or proprietary." in wished.words
    assert versions(host) == {OLD}


def test_repository_key_of_somebody_else(host: Host, play: Play) -> None:
    run = play("driver.yml", nvidia_driver_repository_key_fingerprints=["A" * 40])
    assert run.status != 0
    (own,) = fingerprints(host.file(KEY).content)
    assert f"has the fingerprint {own}, expected {'A' * 40}" in run.words
    assert "Nothing was changed: find out who signed before you change the expected fingerprint." in run.words


def test_conflicting_old_source(host: Host, play: Play) -> None:
    line = "deb [signed-by=/usr/share/keyrings/other.gpg] file:///opt/stub-nvidia/compute/cuda/repos/debian13/x86_64/ /"
    host.check_output("echo %s > %s", line, SOURCE)
    try:
        run = play("driver.yml")
        assert run.status != 0
        assert f"{SOURCE}: left by an earlier installation of the repository nvidia-driver" in run.words
        assert "look at it, then remove it, or set the role's ..._remove_old_sources: true" in run.words
        assert host.file(SOURCE).exists
    finally:
        host.check_output("rm %s", SOURCE)
