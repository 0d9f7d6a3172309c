"""GPUs divided by MIG on a host with eight stub GPUs: as declared, never under somebody's work, over restarts too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from lab import hosts
from tests.support.plays import Play

NAME = "molecule-mig"
STATE = "/var/lib/stub-nvidia/state.json"
ONE = {"gpus": [0], "devices": {"1g.10gb": 7}}
TWO = {"gpus": [1], "devices": {"3g.40gb": 1, "1g.10gb": 4}}
#: Only the second GPU would change.
OTHER: list[dict[str, Any]] = [ONE, {"gpus": [1], "devices": {"7g.80gb": 1}}]


def layout(host: Host) -> dict[int, dict[str, int]]:
    """GPU -> profiles, of those in MIG mode."""
    current = yaml.safe_load(host.check_output("nvidia-mig-parted export"))["mig-configs"]["current"]
    return {part["devices"][0]: part["mig-devices"] for part in current if part["mig-enabled"]}


DECLARED = {0: {"1g.10gb": 7}, 1: {"3g.40gb": 1, "1g.10gb": 4}}


def start(host: Host, name: str, device: str, *more: str) -> None:
    words = " ".join(more)
    host.check_output(
        f"docker run -d --init --name {name} --device nvidia.com/gpu={device} {words} local/busybox:1 /bin/sleep 99999"
    )


@pytest.fixture(autouse=True)
def no_containers(host: Host) -> Iterator[None]:
    yield
    host.run("docker ps --all --quiet | xargs --no-run-if-empty docker rm --force")


def test_each_gpu_has_its_own_layout(host: Host) -> None:
    assert layout(host) == DECLARED


def test_cdi_names_the_devices_and_a_container_sees_one(host: Host) -> None:
    names = host.check_output("nvidia-ctk cdi list").split()
    assert {"nvidia.com/gpu=0:6", "nvidia.com/gpu=1:4", "nvidia.com/gpu=2"} <= set(names)
    assert not {"nvidia.com/gpu=0:7", "nvidia.com/gpu=1:5"} & set(names)
    start(host, "one", "1:0")
    assert host.check_output("docker exec one nvidia-smi -L").count("UUID: MIG-") == 1


def test_change_by_hand_is_put_right(host: Host, play: Play) -> None:
    host.check_output("nvidia-smi -i 1 -mig 0")
    assert layout(host) == {0: DECLARED[0]}
    run = play("mig.yml")
    assert run.status == 0
    assert layout(host) == DECLARED
    assert play("mig.yml").changed == 0


def test_busy_gpu_is_refused_and_another_one_does_not_matter(host: Host, play: Play) -> None:
    start(host, "guest", "1:0")
    start(host, "elsewhere", "5")
    run = play("mig.yml", nvidia_mig_layout=OTHER, nvidia_mig_drain=True)
    assert run.status != 0
    assert "GPU 1 is in use by guest, and MIG cannot change under it. Nothing was changed. Stop it, then" in run.words
    assert layout(host) == DECLARED
    assert host.check_output("docker ps --format '{{.Names}}' | sort").split() == ["elsewhere", "guest"]


def test_engine_is_drained_only_when_allowed(host: Host, play: Play) -> None:
    start(host, "redoubt-small", "1:0", "--label redoubt.engine=vllm")
    start(host, "redoubt-large", "5", "--label redoubt.engine=vllm")
    run = play("mig.yml", nvidia_mig_layout=OTHER)
    assert run.status != 0
    assert "GPU 1 is in use by redoubt-small" in run.words
    assert "nvidia_mig_drain: true" in run.words
    assert layout(host) == DECLARED
    assert play("mig.yml", nvidia_mig_layout=OTHER, nvidia_mig_drain=True).status == 0
    assert layout(host) == {0: DECLARED[0], 1: {"7g.80gb": 1}}
    assert host.check_output("docker ps --format '{{.Names}}'") == "redoubt-large"
    assert "nvidia.com/gpu=1:1" not in host.check_output("nvidia-ctk cdi list").split()
    assert play("mig.yml").status == 0
    assert layout(host) == DECLARED


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ({"1g.5gb": 7}, "NVIDIA H100 80GB HBM3 has no profile 1g.5gb. Fix: choose of 1g.10gb"),
        ({"3g.40gb": 2, "1g.10gb": 1}, "it takes 7 of 7 compute slices and 9 of 8 memory slices"),
    ],
)
def test_layout_that_cannot_be_is_refused(host: Host, play: Play, devices: dict[str, int], said: str) -> None:
    run = play("mig.yml", nvidia_mig_layout=[{"gpus": [2], "devices": devices}])
    assert run.status != 0
    assert said in run.words
    assert layout(host) == DECLARED


def test_layout_and_containers_come_back_after_a_restart(host: Host) -> None:
    start(host, "engine", "1:0", "--restart unless-stopped")
    # The stub keeps what real GPUs forget when they are reset.
    state = json.loads(host.file(STATE).content_string) | {"mig": {}}
    host.check_output("printf %%s %s > %s", json.dumps(state), STATE)
    host.check_output("stub-nvidia refresh")
    assert layout(host) == {}
    hosts.restart(NAME)
    assert layout(host) == DECLARED
    assert host.check_output("docker exec engine nvidia-smi -L").count("UUID: MIG-") == 1
