"""Debian's own driver: a module that was really built, one version, held; and what is refused when it was not built."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play

SET = (
    "nvidia-open-kernel-dkms",
    "nvidia-smi",
    "libcuda1",
    "libnvidia-ml1",
    "nvidia-alternative",
    "firmware-nvidia-gsp",
)
MODULES = ("", "-uvm", "-modeset", "-drm", "-peermem")
NAME = "nvidia-current-open"
DUE = "nvidia_driver_reboot is never"
NEWER = """set -eu
mkdir -p /srv/newer/root/DEBIAN && cd /srv/newer
cat >root/DEBIAN/control <<'END'
Package: nvidia-smi
Version: 9999-1
Architecture: amd64
Maintainer: stub
Description: stub
END
dpkg-deb --build root . >/dev/null
dpkg-scanpackages . >Packages
echo 'deb [trusted=yes] file:///srv/newer ./' >/etc/apt/sources.list.d/newer.list
apt-get -qq update"""


@pytest.fixture
def version(host: Host) -> str:
    """The upstream version that the archive has."""
    found = re.search(r"Candidate: ([0-9.]+)-", host.check_output("apt-cache policy nvidia-open-kernel-dkms"))
    assert found
    return found[1]


@pytest.fixture
def kernel(host: Host) -> str:
    """The one kernel whose headers are installed; the running one is the machine's."""
    (release,) = str(host.check_output("ls /lib/modules")).split()
    assert release != host.check_output("uname -r")
    return release


def held(host: Host) -> set[str]:
    return {name.partition(":")[0] for name in host.check_output("apt-mark showhold").split()}


def driver(play: Play) -> dict[str, Any]:
    """gpu_facts' part of that name."""
    found = re.search(r'"msg": "driver=(\{.*\})"', play("facts.yml").words)
    assert found
    return dict(json.loads(found[1].replace('\\"', '"')))


def test_modules_are_built_for_the_next_kernel(host: Host, version: str, kernel: str) -> None:
    assert f"{NAME}/{version}, {kernel}, x86_64: installed" in host.check_output("dkms status")
    for suffix in MODULES:
        told = host.check_output(f"modinfo -k {kernel} {NAME}{suffix}")
        fields = dict(re.findall(r"^(\w+):\s+(.*)$", told, re.MULTILINE))
        assert fields["filename"].startswith(f"/lib/modules/{kernel}/updates/dkms/")
        assert fields["license"] in ("Dual MIT/GPL", "Dual BSD/GPL")  # the proprietary ones say NVIDIA
        assert fields["vermagic"].startswith(f"{kernel} ")
    assert host.check_output(f"modinfo -k {kernel} -F version {NAME}") == version


def test_modprobe_would_load_them_with_the_options(host: Host, kernel: str) -> None:
    # The lab's own hands on what is not for stub drivers.
    said = host.check_output(f"modprobe -S {kernel} --show-depends --ignore-install {NAME}-uvm")
    assert re.search(rf"insmod /lib/modules/{re.escape(kernel)}/updates/dkms/{NAME}\.ko", said)
    assert re.search(rf"{NAME}-uvm\.ko\S* .*\buvm_disable_hmm=1", said)


def test_nouveau_is_kept_away_from_the_start_on(host: Host, kernel: str) -> None:
    assert "blacklist nouveau" in host.check_output("modprobe --showconfig")
    assert "etc/modprobe.d/redoubt-nvidia.conf" in host.check_output(f"lsinitramfs /boot/initrd.img-{kernel}")


def test_one_version_held_and_kept_by_an_upgrade(host: Host, version: str) -> None:
    assert {str(host.package(name).version).rpartition("-")[0] for name in SET} == {version}
    assert {*SET, "nvidia-persistenced"} <= held(host)
    before = host.package("nvidia-smi").version
    host.check_output(NEWER)
    try:
        said = host.check_output("apt-get -y upgrade")
        assert host.package("nvidia-smi").version == before
        assert re.search(r"kept back:\s+(\S+\s+)*nvidia-smi", said)
        host.check_output("apt-mark unhold nvidia-smi")
        assert "Inst nvidia-smi" in host.check_output("apt-get -s upgrade")  # it is the hold that keeps it
    finally:
        host.check_output("apt-mark hold nvidia-smi")
        host.check_output("rm -r /etc/apt/sources.list.d/newer.list /srv/newer && apt-get -qq update")
    assert '"^nvidia-"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_real_tools_are_there_and_say_that_nothing_is_loaded(host: Host) -> None:
    said = host.run("nvidia-smi")
    assert said.rc == 9
    assert "couldn't communicate with the NVIDIA driver" in said.stdout
    assert host.service("nvidia-persistenced").is_enabled


def test_facts_know_the_module_by_debians_name(host: Host, play: Play, version: str, kernel: str) -> None:
    running = host.check_output("uname -r")
    found = driver(play)
    assert (found["kernel"], found["loaded"], found["installed"]) == (running, None, None)
    assert found["library"] == version
    assert found["dkms"] == [{"module": NAME, "version": version, "kernel": kernel, "state": "installed"}]
    # As after the restart: `modinfo nvidia` alone finds nothing then, too.
    host.check_output(f"ln -s {kernel} /lib/modules/{running}")
    try:
        assert host.run("modinfo nvidia").rc != 0
        found = driver(play)
    finally:
        host.check_output(f"rm /lib/modules/{running}")
    assert (found["installed"], found["installed_flavour"]) == (version, "open")


def test_no_restart_into_a_kernel_without_the_module(host: Host, play: Play, version: str, kernel: str) -> None:
    host.check_output(f"dkms uninstall -k {kernel} {NAME}/{version}")
    run = play()
    host.check_output(f"dkms install -k {kernel} {NAME}/{version}")
    assert run.status != 0
    assert f"DKMS has no module {version} for kernel {kernel}" in run.words
    assert f"dkms autoinstall -k {kernel}" in run.words
    assert DUE not in run.words
    after = play()
    assert (after.status, after.changed) == (0, 0)
    assert DUE in after.words


def test_build_that_fails_is_refused(host: Host, play: Play) -> None:
    # The last one: the host is not mended, since that would build everything again.
    host.check_output("apt-get -y --allow-change-held-packages remove nvidia-open-kernel-dkms")
    host.check_output(f"echo 'MAKE[0]=false' > /etc/dkms/{NAME}.conf")
    run = play(timeout=600)
    assert run.status != 0
    assert "cannot install" in run.words
    assert "nvidia-open-kernel-dkms" in run.words
    assert "module build on kernel" in run.words
    assert "a package's own script failed" in run.words
    assert DUE not in run.words
