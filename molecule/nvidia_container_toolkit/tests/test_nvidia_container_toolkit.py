"""The toolkit on a host with eight stub GPUs: one version, a fresh CDI specification, proved containers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from lab import gpu_description, gpus, hosts
from planner.container_toolkit import PACKAGES
from tests.support.plays import Play

NAME = "molecule-toolkit"
SPEC = "/run/cdi/nvidia.yaml"
OLD = "/etc/apt/sources.list.d/nvidia-docker.list"


def versions(host: Host) -> set[str]:
    return {str(host.package(name).version) for name in PACKAGES}


def seen(host: Host, container: str) -> int:
    """GPUs that nvidia-smi lists in a running container."""
    return str(host.check_output("docker exec %s nvidia-smi -L", container)).count("UUID: GPU-")


@pytest.fixture
def engine(host: Host) -> str:
    """A running container with two GPUs, started as an engine is: it comes back by itself."""
    host.run("docker rm -f engine")
    host.check_output(
        "docker run -d --init --name engine --restart unless-stopped"
        " --device nvidia.com/gpu=0 --device nvidia.com/gpu=5 local/busybox:1 /bin/sleep 99999"
    )
    return "engine"


def test_four_packages_in_one_version_and_held(host: Host) -> None:
    assert versions(host) == {"1.20.0-1"}
    held = host.check_output("apt-mark showhold").split()
    assert set(PACKAGES) <= set(held)


def test_one_writer_of_daemon_json(host: Host) -> None:
    options = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert options["features"] == {"cdi": True, "containerd-snapshotter": False}
    assert "runtimes" not in options
    assert json.loads(host.check_output("docker info --format '{{json .CDISpecDirs}}'"))


def test_container_keeps_its_gpus_over_daemon_reloads(host: Host, engine: str) -> None:
    assert seen(host, engine) == 2
    for _ in range(2):
        host.check_output("systemctl daemon-reload")
        assert seen(host, engine) == 2


def test_role_reloads_no_units_without_need(host: Host, play: Play) -> None:
    count = "journalctl --boot --output cat _PID=1 | grep -c -i 'reloading'"
    host.check_output("systemctl daemon-reload")
    before = int(host.check_output(count))
    assert before > 0  # the count would see one
    run = play("toolkit.yml")
    assert (run.status, run.changed) == (0, 0)
    assert int(host.check_output(count)) == before


def test_stale_specification_is_written_anew(host: Host, play: Play) -> None:
    host.check_output("sed -i 's/580[.]126[.]20/580.95.05/' %s", SPEC)
    assert "580.95.05" in host.file(SPEC).content_string
    run = play("toolkit.yml")
    assert (run.status, run.changed) == (0, 1)
    assert "580.95.05" not in host.file(SPEC).content_string


def test_stale_specification_by_hand_is_refused(host: Host, play: Play) -> None:
    host.check_output("mkdir -p /etc/cdi && sed 's/580[.]126[.]20/580.95.05/' %s > /etc/cdi/old.yaml", SPEC)
    run = play("toolkit.yml")
    there = host.file("/etc/cdi/old.yaml").exists
    host.check_output("rm /etc/cdi/old.yaml")
    assert run.status != 0
    assert "/etc/cdi/old.yaml is for driver 580.95.05, not the loaded one: it was made by hand" in run.words
    assert there


def test_seven_of_eight_gpus_in_the_container_is_refused(host: Host, play: Play) -> None:
    # The specification names GPU 7, yet gives another one's node: nobody but the proof can see that.
    host.check_output("sed -i 's#/dev/nvidia7$#/dev/nvidia6#' %s", SPEC)
    run = play("toolkit.yml")
    host.check_output("systemctl restart nvidia-cdi-refresh.service")
    assert run.status != 0
    assert "the proof container of large" in run.words
    assert "7 of 8 GPUs are visible, missing: 7 (GPU-" in run.words


def test_planned_gpu_that_left_the_host_is_refused(host: Host, play: Play) -> None:
    last = gpu_description.load("8xH100-SXM")["gpus"][7]["address"]
    gpus.set_faults(NAME, missing_gpus=[last])
    run = play("toolkit.yml")
    gpus.set_faults(NAME, missing_gpus=None)
    host.check_output("systemctl restart nvidia-cdi-refresh.service")
    assert run.status != 0
    assert "planned, but no device of this host: 7 (there are: 0, 1, 2, 3, 4, 5, 6)" in run.words


def test_one_lost_gpu_does_not_take_the_others_at_boot(host: Host) -> None:
    last = gpu_description.load("8xH100-SXM")["gpus"][7]["address"]
    gpus.set_faults(NAME, lost_gpus=[last])
    answered = host.run("nvidia-smi -L").rc
    host.check_output("rm %s", SPEC)
    host.check_output("systemctl restart redoubt-cdi.service")
    names = host.check_output("nvidia-ctk cdi list").split()
    gpus.set_faults(NAME, lost_gpus=None)
    host.check_output("systemctl restart nvidia-cdi-refresh.service")
    assert answered != 0
    assert "nvidia.com/gpu=6" in names
    assert "nvidia.com/gpu=7" not in names


@pytest.fixture
def old_source(host: Host) -> Iterator[None]:
    """What NVIDIA's instructions of some years ago left: the same address, another key."""
    key = "signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg"
    host.check_output(f"echo 'deb [{key}] file:/opt/stub-nvidia/libnvidia-container/stable/deb/amd64 /' > %s", OLD)
    yield
    host.check_output("rm -f %s", OLD)


@pytest.mark.usefixtures("old_source")
def test_old_sources_are_refused_or_removed(host: Host, play: Play) -> None:
    # What APT itself says: it reads no source at all.
    assert "Conflicting values set for option Signed-By" in host.run("apt-get update").stderr
    run = play("toolkit.yml")
    assert run.status != 0
    assert OLD in run.words
    assert "left by an earlier installation" in run.words
    assert play("toolkit.yml", nvidia_container_toolkit_remove_old_sources=True).status == 0
    assert not host.file(OLD).exists
    host.check_output("apt-get update")


def test_too_old_version_is_refused_before_anything_changes(host: Host, play: Play) -> None:
    run = play("toolkit.yml", nvidia_container_toolkit_version="1.17.8")
    assert run.status != 0
    assert "nvidia_container_toolkit_version" in run.words
    assert "write 1.18.0 or newer" in run.words
    assert versions(host) == {"1.20.0-1"}


def test_another_version_moves_all_four_together(host: Host, play: Play, engine: str) -> None:
    assert play("toolkit.yml", nvidia_container_toolkit_version="1.19.0").status == 0
    assert versions(host) == {"1.19.0-1"}
    assert seen(host, engine) == 2  # packages reload units
    assert play("toolkit.yml").status == 0
    assert versions(host) == {"1.20.0-1"}


def test_containers_come_back_with_their_gpus_after_a_restart(host: Host, engine: str) -> None:
    hosts.restart(NAME)
    assert host.check_output("docker inspect -f '{{.State.Running}}' %s", engine) == "true"
    assert seen(host, engine) == 2
