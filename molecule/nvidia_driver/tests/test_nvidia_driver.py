"""The driver's set on a host with eight (stub) GPUs and NVSwitches: one version, held, proved; and each way to fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from testinfra.host import Host

from lab import gpu_description, gpus, hosts
from tests.support.plays import Play

NAME = "molecule-driver"
OLD, NEW = "580.126.20", "595.71.05"
SET = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libnvidia-ml1", "nvidia-fabricmanager", "libnvidia-nscq")
DCGM = ("datacenter-gpu-manager-4-core", "datacenter-gpu-manager-4-cuda13")
STATE = "/var/lib/stub-nvidia/state.json"
SOURCE = "/etc/apt/sources.list.d/nvidia-docker.list"


def versions(host: Host) -> set[str]:
    return {str(host.package(name).version).partition("-")[0] for name in SET}


def held(host: Host) -> set[str]:
    return set(host.check_output("apt-mark showhold").split())


def loaded(host: Host) -> str:
    return str(host.file("/sys/module/nvidia/version").content_string).strip()


def change(host: Host, path: str, key: str, value: object) -> None:
    """Change one key of a JSON file of the stubs, and let it be seen."""
    code = f"import json; p={path!r}; d=json.load(open(p)); d[{key!r}]=json.loads({json.dumps(value)!r});"
    host.check_output("python3 -c %s", f"{code} json.dump(d, open(p, 'w'))")
    host.check_output("stub-nvidia refresh")


@contextmanager
def changed(host: Host, path: str, key: str, value: object, back: object) -> Iterator[None]:
    """Change it for a while."""
    change(host, path, key, value)
    try:
        yield
    finally:
        change(host, path, key, back)


def test_one_version_in_use_and_held(host: Host) -> None:
    assert versions(host) == {OLD}
    assert loaded(host) == OLD
    assert {*SET, *DCGM} <= held(host)
    assert host.package(f"nvidia-driver-pinning-{OLD}").is_installed
    assert host.package(DCGM[0]).version == "1:4.6.0-1"


def test_services_and_fabric(host: Host) -> None:
    for unit in ("nvidia-persistenced", "nvidia-fabricmanager"):
        assert host.service(unit).is_running
        assert host.service(unit).is_enabled
    states = host.check_output("nvidia-smi --query-gpu=fabric.state,fabric.status --format=csv,noheader").splitlines()
    assert states == ["Completed, Success"] * 8


def test_module_options(host: Host) -> None:
    assert "blacklist nouveau" in host.file("/etc/modprobe.d/redoubt-nvidia.conf").content_string
    assert host.file("/etc/modules-load.d/redoubt-nvidia.conf").content_string.split()[-2:] == ["nvidia", "nvidia_uvm"]


def test_key_signs_for_its_repository_alone(host: Host) -> None:
    text = host.file("/etc/apt/sources.list.d/nvidia-driver.sources").content_string
    assert "Signed-By: /etc/apt/keyrings/nvidia-driver.asc" in text


def test_upgrades_leave_the_set_alone(host: Host) -> None:
    # Without the pin 595 would be the newest; the hold alone must keep it, and unattended-upgrades has its own list.
    pin = "/etc/apt/preferences.d/nvidia-driver-pin"
    host.check_output("mv %s /var/tmp/pin", pin)
    try:
        said = host.check_output("apt-get -y upgrade")
        refused = host.run("apt-get -y install nvidia-fabricmanager=595.71.05-1")
    finally:
        host.check_output("mv /var/tmp/pin %s", pin)
    assert "kept back" in said
    assert "nvidia-fabricmanager" in said
    assert refused.rc != 0
    assert versions(host) == {OLD}
    assert '"^nvidia-"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_host_comes_back_with_everything(host: Host, play: Play) -> None:
    hosts.restart(NAME)
    run = play()
    assert (run.status, run.changed) == (0, 0)
    assert host.service("nvidia-fabricmanager").is_running


def test_fabric_that_never_completes_is_refused(host: Host, play: Play) -> None:
    gpus.set_faults(NAME, fabric="In Progress")
    run = play(nvidia_driver_fabric_timeout=4)
    gpus.set_faults(NAME, fabric=None)
    assert run.status != 0
    assert "the fabric is In Progress" in run.words
    assert "journalctl -u nvidia-fabricmanager" in run.words


def test_missing_gpu_is_refused(host: Host, play: Play) -> None:
    last = gpu_description.load("8xH100-SXM")["gpus"][7]["address"]
    gpus.set_faults(NAME, lost_gpus=[last])
    run = play()
    gpus.set_faults(NAME, lost_gpus=None)
    assert run.status != 0
    assert f"7 of 8 GPUs can be used, not {last}" in run.words


def test_fabric_manager_of_another_version_is_put_right(host: Host, play: Play) -> None:
    host.check_output(
        "apt-get -y --allow-downgrades --allow-change-held-packages install nvidia-fabricmanager=580.95.05-1"
    )
    host.run("systemctl restart nvidia-fabricmanager")
    assert not host.service("nvidia-fabricmanager").is_running
    assert play().status == 0
    assert versions(host) == {OLD}
    assert host.service("nvidia-fabricmanager").is_running


def test_key_of_somebody_else_is_refused(host: Host, play: Play) -> None:
    run = play(nvidia_driver_repository_key_fingerprints=["A" * 40])
    assert run.status != 0
    assert f"expected {'A' * 40}" in run.words
    assert "Nothing was changed" in run.words


def test_secure_boot_is_refused_with_what_to_do(host: Host, play: Play) -> None:
    with changed(host, "/etc/stub-nvidia/hardware.json", "secure_boot", True, False):
        run, early = play(), play("preflight.yml")
    assert run.status != 0
    assert "Refused, nothing was changed" in run.words
    assert "mokutil --import /var/lib/dkms/mok.pub" in run.words
    assert early.status != 0
    assert "Refused: 1 problem, no host was changed. - Secure Boot" in early.words.replace("\\n", " ")


def test_preflight_shows_what_is_chosen(play: Play) -> None:
    run = play("preflight.yml", nvidia_driver_version="610.43.02")
    assert run.status == 0
    assert "driver: 610.43.02 (open) for 8 GPUs with NVLink fabric" in run.words
    assert "warning: nvidia_driver_version is 610.43.02: support of branch 610 ended on 2026-08-31" in run.words


def test_loaded_nouveau_stops_the_run(host: Host, play: Play) -> None:
    # A host on which nouveau was first; the blacklist that the role installs keeps it away from the next start on.
    host.check_output("systemctl stop nvidia-fabricmanager nvidia-persistenced")
    change(host, STATE, "loaded_driver", None)
    change(host, STATE, "nouveau_loaded", True)
    run = play()
    hosts.restart(NAME)
    assert play().status == 0
    assert run.status != 0
    assert "nouveau is loaded and holds the GPUs" in run.words
    assert "nvidia_driver_reboot: when_needed" in run.words


def test_old_source_is_refused_or_removed(host: Host, play: Play) -> None:
    line = "deb [signed-by=/usr/share/keyrings/other.gpg] file:///opt/stub-nvidia/compute/cuda/repos/debian13/x86_64/ /"
    host.check_output("echo %s > %s", line, SOURCE)
    said, run = host.run("apt-get update").stderr, play()
    host.check_output("cat %s", SOURCE)  # a refusal changes nothing
    assert "Conflicting values set for option Signed-By" in said
    assert run.status != 0
    assert SOURCE in run.words
    assert play(nvidia_driver_remove_old_sources=True).status == 0
    assert not host.file(SOURCE).exists


def test_packages_can_be_released(host: Host, play: Play) -> None:
    assert play(nvidia_driver_hold=False).status == 0
    assert held(host) & {*SET, *DCGM} == set()
    assert not host.file("/etc/apt/apt.conf.d/52redoubt-nvidia").exists
    assert play().status == 0
    assert set(SET) <= held(host)


def test_branch_up_and_down_again(host: Host, play: Play) -> None:
    run = play(nvidia_driver_version=NEW)
    assert run.status != 0
    assert f"driver {OLD} is loaded, {NEW} is wanted" in run.words
    assert "nvidia_driver_reboot is never" in run.words
    hosts.restart(NAME)
    assert play(nvidia_driver_version=NEW).status == 0
    assert (versions(host), loaded(host)) == ({NEW}, NEW)
    back = play()
    assert back.status != 0
    assert f"{NEW} is installed, which is newer" in back.words
    assert versions(host) == {NEW}
    assert play(nvidia_driver_allow_downgrade=True).status != 0  # a restart is needed
    hosts.restart(NAME)
    assert play().status == 0
    assert (versions(host), loaded(host)) == ({OLD}, OLD)
