"""The container toolkit: which versions go together, whether a CDI specification is right, what a container sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from filter_plugins.container_toolkit import container_toolkit_refusal
from module_utils.gpu.cdi import device_names, faults
from module_utils.gpu.proof import compare, listing
from planner import container_toolkit
from tests.unit.gpu_support import GpuHost
from tests.unit.gpu_support import listing as smi_listing

DOCKER = '{"ServerVersion": "26.1.5+dfsg1", "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"]}'


@pytest.fixture
def h100(tmp_path: Path) -> GpuHost:
    host = GpuHost(tmp_path, "8xH100-SXM").with_driver()
    host.says("docker", DOCKER)
    return host


def spec(host: GpuHost, names: list[str], driver: str = "580.126.20", path: str = "run/cdi/nvidia.yaml") -> None:
    """Write a specification that names these devices."""
    devices = "".join(f'- name: "{name}"\n' for name in names)
    host.file(path, f"---\ncdiVersion: 0.7.0\nkind: nvidia.com/gpu\ndevices:\n{devices}# libcuda.so.{driver}\n")


def all_names(facts: dict[str, Any]) -> list[str]:
    return [*device_names(facts["gpus"]), "all"]


# Versions


def test_a_host_that_fits_is_not_refused(h100: GpuHost) -> None:
    assert container_toolkit_refusal(h100.facts(), "1.20.0", False) == []


@pytest.mark.parametrize(
    ("version", "docker", "said"),
    [
        ("1.17.8", "26.1.5", "write 1.18.0 or newer"),
        ("1.20.0", "20.10.24+dfsg1", "it has no CDI, which begins with 25.0"),
        ("1.20.0", "25.0.5", "toolkit 1.20.0 writes CDI 0.7.0, which Docker reads from 26.1 on"),
        ("1.19.0", "26.0.2", "reads from 26.1 on"),
    ],
)
def test_versions_that_do_not_go_together(h100: GpuHost, version: str, docker: str, said: str) -> None:
    h100.says("docker", DOCKER.replace("26.1.5+dfsg1", docker))
    assert said in "\n".join(container_toolkit_refusal(h100.facts(), version, False))


def test_older_toolkit_goes_with_an_older_engine(h100: GpuHost) -> None:
    h100.says("docker", DOCKER.replace("26.1.5+dfsg1", "25.0.5"))
    assert container_toolkit_refusal(h100.facts(), "1.18.2", False) == []


def test_cdi_switched_off_is_refused_unless_it_is_yet_to_come(h100: GpuHost) -> None:
    h100.says("docker", '{"ServerVersion": "26.1.5", "CDISpecDirs": []}')
    assert "CDI is switched off" in "\n".join(container_toolkit_refusal(h100.facts(), "1.20.0", False))
    assert container_toolkit_refusal(h100.facts(), "1.20.0", True) == []


def test_host_without_driver_or_gpu(tmp_path: Path) -> None:
    bare = GpuHost(tmp_path, "8xH100-SXM")
    assert "no NVIDIA driver is loaded" in "\n".join(container_toolkit_refusal(bare.facts(), "1.20.0", False))
    assert container_toolkit_refusal(bare.facts(), "1.20.0", True) == []
    facts = {**bare.facts(), "gpus": []}
    assert "there is none on its PCI bus" in "\n".join(container_toolkit_refusal(facts, "1.20.0", False))


def test_engine_that_does_not_answer_is_not_judged(h100: GpuHost) -> None:
    h100.says("docker", "Cannot connect to the Docker daemon", code=1)
    facts = h100.facts()
    assert facts["docker"] == {"version": None, "cdi": None}
    assert container_toolkit_refusal(facts, "1.20.0", False) == []


def test_warnings_of_the_client_are_no_answer(h100: GpuHost) -> None:
    h100.says("docker", f"WARNING: No swap limit support\n{DOCKER}")
    assert h100.facts()["docker"] == {"version": "26.1.5+dfsg1", "cdi": True}


def test_packages_are_one_set() -> None:
    assert container_toolkit.packages("1.20.0") == [
        "nvidia-container-toolkit=1.20.0-*",
        "nvidia-container-toolkit-base=1.20.0-*",
        "libnvidia-container-tools=1.20.0-*",
        "libnvidia-container1=1.20.0-*",
    ]


def test_legacy_runtime_keeps_systemd_out_of_control_groups() -> None:
    assert container_toolkit.engine_options(legacy=False) == {"features": {"cdi": True}}
    options = container_toolkit.engine_options(legacy=True)
    assert options["features"] == {"cdi": True}
    assert options["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert options["exec-opts"] == ["native.cgroupdriver=cgroupfs"]


# Specifications


def test_fresh_specification_has_no_fault(h100: GpuHost) -> None:
    spec(h100, all_names(h100.facts()))
    assert faults(h100.facts(), ["0", "7"]) == []


def test_no_specification(h100: GpuHost) -> None:
    (h100.root / "run/cdi/nvidia.yaml").unlink()
    assert faults(h100.facts(), []) == ["there is no CDI specification for nvidia.com/gpu in /etc/cdi and /run/cdi"]


def test_specification_of_another_driver(h100: GpuHost) -> None:
    spec(h100, all_names(h100.facts()), driver="580.95.05")
    assert faults(h100.facts(), []) == ["/run/cdi/nvidia.yaml is for driver 580.95.05, not the loaded one"]


def test_specification_by_hand_is_told_to_go(h100: GpuHost) -> None:
    names = all_names(h100.facts())
    spec(h100, names)
    spec(h100, names, driver="580.95.05", path="etc/cdi/mine.yaml")
    assert "made by hand and nothing renews it, so remove it" in "\n".join(faults(h100.facts(), []))


def test_specification_that_lacks_a_gpu(h100: GpuHost) -> None:
    names = all_names(h100.facts())
    spec(h100, [name for name in names if name != "7"])
    assert faults(h100.facts(), []) == ["no CDI specification names 7"]


def test_planned_gpu_that_is_not_there(h100: GpuHost) -> None:
    spec(h100, all_names(h100.facts()))
    assert faults(h100.facts(), ["7", "8"]) == [
        "planned, but no device of this host: 8 (there are: 0, 1, 2, 3, 4, 5, 6, 7)"
    ]


def test_specification_from_before_mig(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "1xA100-MIG").with_driver()
    facts = host.facts()
    assert [name for name in device_names(facts["gpus"]) if ":" in name] == ["0:0", "0:1", "0:2", "0:3"]
    spec(host, ["0", facts["gpus"][0]["uuid"], "all"])
    assert "no CDI specification names 0:0, 0:1, 0:2, 0:3, MIG-" in "\n".join(faults(host.facts(), []))
    spec(host, all_names(facts))
    assert faults(host.facts(), ["0:3"]) == []
    # Five MIG devices once, four now.
    spec(host, [*all_names(facts), "0:4", "MIG-00000000-0000-0000-0000-000000000000"])
    assert "names devices that are not there: 0:4, MIG-0000" in "\n".join(faults(host.facts(), []))


# Proofs


def test_container_that_sees_what_it_should(h100: GpuHost) -> None:
    text = smi_listing(h100.description)
    host = listing(text)
    assert compare(host, host, [str(index) for index in range(8)]) == ""
    one = "".join(line for line in text.splitlines(True) if line.startswith("GPU 3"))
    # Inside, indexes begin with 0.
    inside = listing(one.replace("GPU 3", "GPU 0"))
    assert compare(host, inside, ["3"]) == ""
    assert compare(host, inside, [h100.description["gpus"][3]["uuid"]]) == ""


def test_seven_of_eight(h100: GpuHost) -> None:
    lines = smi_listing(h100.description).splitlines(True)
    wrong = compare(listing("".join(lines)), listing("".join(lines[:7])), [str(index) for index in range(8)])
    assert wrong == f"7 of 8 GPUs are visible, missing: 7 ({h100.description['gpus'][7]['uuid']})"


def test_one_too_many(h100: GpuHost) -> None:
    host = listing(smi_listing(h100.description))
    assert compare(host, host, ["0"]).startswith("visible, but not planned: 1 (GPU-")


def test_gpu_that_the_host_lost_too(h100: GpuHost) -> None:
    seven = listing("".join(smi_listing(h100.description).splitlines(True)[:7]))
    uuid = h100.description["gpus"][7]["uuid"]
    wrong = compare(seven, seven, [*seven.gpus, uuid])
    assert wrong == f"7 of 8 GPUs are visible, missing: {uuid} (not on the host either)"


def test_mig_devices_are_told_apart(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "1xA100-MIG")
    text = smi_listing(host.description)
    whole = listing(text)
    assert sorted(whole.mig.values()) == ["0:0", "0:1", "0:2", "0:3"]
    lines = text.splitlines(True)
    # The GPU that carries a MIG device is listed with it and does not count.
    assert compare(whole, listing("".join([lines[0], lines[2]])), ["0:1"]) == ""
    assert "1 of 2 GPUs are visible, missing: 0:0 (MIG-" in compare(
        whole, listing("".join([lines[0], lines[2]])), ["0:0", "0:1"]
    )
