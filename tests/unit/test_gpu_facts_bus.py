"""What a host's GPUs are before there is a driver: from sysfs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab import gpu_description
from library import gpu_facts
from module_utils.gpu.facts import gather
from module_utils.gpu.host import Host
from module_utils.gpu.pci import count_gpus
from tests.unit.gpu_support import GpuHost

DEVICES = "sys/bus/pci/devices"


@pytest.mark.parametrize("name", gpu_description.names())
def test_each_description_before_a_driver(tmp_path: Path, name: str) -> None:
    host = GpuHost(tmp_path, name)
    facts = host.facts()
    expected = host.description["gpus"]
    assert facts["pci"] is True
    keys = ("address", "device", "product", "numa_node", "memory_mib", "mig_capable")
    assert [[gpu[key] for key in keys] for gpu in facts["gpus"]] == [[gpu[key] for key in keys] for gpu in expected]
    assert all(gpu["bound"] is None and gpu["visible"] is None and gpu["uuid"] is None for gpu in facts["gpus"])
    assert [switch["address"] for switch in facts["nvswitches"]] == [
        switch["address"] for switch in host.description["nvswitches"]
    ]
    assert [port["address"] for port in facts["nvlink_management"]] == [
        port["address"] for port in host.description["infiniband"]
    ]
    assert facts["secure_boot"] is host.description["secure_boot"]
    assert facts["driver"]["loaded"] is None
    assert facts["smi"] == {"installed": False, "driver": None, "error": None, "text": None, "off_bus": []}
    assert count_gpus(Host(str(host.root))) == len(expected)


@pytest.mark.parametrize(
    ("name", "form", "nvlink", "generation", "needs_open", "switches"),
    [
        ("8xH100-SXM", "SXM", 4, "Hopper", False, 4),
        ("2xL40S-PCIe", "PCIe", None, "Ada", False, 0),
        ("1xA100-MIG", "PCIe", 3, "Ampere", False, 0),
        ("8xB200", "SXM", 5, "Blackwell", True, 0),
    ],
)
def test_what_the_table_adds(
    tmp_path: Path, name: str, form: str, nvlink: int | None, generation: str, needs_open: bool, switches: int
) -> None:
    facts = GpuHost(tmp_path, name).facts()
    for gpu in facts["gpus"]:
        assert (gpu["form"], gpu["nvlink"], gpu["generation"]) == (form, nvlink, generation)
        assert (gpu["needs_open_module"], gpu["supports_open_module"]) == (needs_open, True)
    assert [switch["product"] for switch in facts["nvswitches"]] == ["H100 NVSwitch"] * switches


def test_nouveau_holds_the_gpus(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    assert host.facts()["driver"]["nouveau"] is False
    host.description["nouveau"] = True
    host.tree(None)
    facts = host.facts()
    assert facts["driver"]["nouveau"] is True
    assert [gpu["bound"] for gpu in facts["gpus"]] == ["nouveau", "nouveau"]


@pytest.mark.parametrize("answer", [True, False, None])
def test_secure_boot(tmp_path: Path, answer: bool | None) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    host.description["secure_boot"] = answer
    host.tree(None)
    assert host.facts()["secure_boot"] is answer


def test_an_unknown_device_id(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "8xB200")
    host.description["gpus"][0]["device"] = "10de:29ff"
    host.description["gpus"][1]["device"] = "10de:3fff"
    host.tree(None)
    first, second, third = host.facts()["gpus"][:3]
    assert (first["product"], first["generation"], first["needs_open_module"]) == (None, "Blackwell", True)
    assert (first["form"], first["memory_mib"], first["mig_capable"]) == (None, None, None)
    assert (second["product"], second["generation"], second["needs_open_module"]) == (None, None, None)
    assert third["product"] == "NVIDIA B200"


def test_what_is_not_a_gpu(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    first = f"{DEVICES}/0000:17:00.0"
    for path, name, text in (
        (f"{DEVICES}/0000:17:00.1", "class", "0x040300"),  # the card's sound device
        (f"{DEVICES}/0000:17:01.0", "class", "0x030200"),  # a virtual function of vGPU
        (f"{DEVICES}/0000:02:00.0", "class", "0x030000"),  # the board's own graphics
    ):
        host.file(f"{path}/vendor", "0x1a03\n" if "02:00" in path else "0x10de\n")
        host.file(f"{path}/device", "0x26b9\n")
        host.file(f"{path}/{name}", f"{text}\n")
    (host.root / f"{DEVICES}/0000:17:01.0/physfn").symlink_to(host.root / first)
    assert [gpu["address"] for gpu in host.facts()["gpus"]] == ["0000:17:00.0", "0000:ca:00.0"]
    assert count_gpus(Host(str(host.root))) == 2


def test_a_gpu_given_to_a_virtual_machine_is_seen_but_not_counted(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    (host.root / f"{DEVICES}/0000:17:00.0/driver").symlink_to("/sys/bus/pci/drivers/vfio-pci")
    assert [gpu["bound"] for gpu in host.facts()["gpus"]] == ["vfio-pci", None]
    assert count_gpus(Host(str(host.root))) == 1


def test_a_network_card_of_the_same_id_manages_no_switch(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "8xB200")
    host.file(f"{DEVICES}/0000:05:00.0/vpd", "an adapter card")
    (host.root / f"{DEVICES}/0000:05:00.1/vpd").unlink()
    assert [port["address"] for port in host.facts()["nvlink_management"]] == ["0000:05:00.2", "0000:05:00.3"]


def test_bus_order_counts_domains_as_numbers(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    host.description["gpus"][0]["address"] = "10000:01:00.0"
    host.description["gpus"][1]["address"] = "2000:01:00.0"
    host.tree(None)
    assert [gpu["address"] for gpu in host.facts()["gpus"]] == ["2000:01:00.0", "10000:01:00.0"]


def test_the_subsystem_tells_products_of_one_id_apart(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    host.description["gpus"][0].update(device="10de:25b6", subsystem="10de:14a9")
    host.description["gpus"][1].update(device="10de:25b6", subsystem="10de:157e")
    host.tree(None)
    assert [gpu["product"] for gpu in host.facts()["gpus"]] == ["NVIDIA A16", "NVIDIA A2"]


def test_an_unknown_numa_node(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "1xA100-MIG")
    host.description["gpus"][0]["numa_node"] = -1
    host.tree(None)
    assert host.facts()["gpus"][0]["numa_node"] is None


def test_every_host_has_the_same_shape(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    without_bus = Host(str(tmp_path / "empty"))
    assert count_gpus(without_bus) is None
    nothing = gather(without_bus)
    assert nothing["pci"] is False
    (tmp_path / "full").mkdir()
    host = GpuHost(tmp_path / "full", "1xA100-MIG")
    before = host.facts()
    after = host.with_driver().facts()
    assert set(nothing) == set(before) == set(after)
    for key in ("driver", "smi", "reboot", "toolkit", "services"):
        assert set(nothing[key]) == set(before[key]) == set(after[key]), key
    assert set(before["gpus"][0]) == set(after["gpus"][0])


def test_the_documentation_names_every_key(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "8xH100-SXM").with_driver()
    facts = host.facts()
    documented = yaml.safe_load(gpu_facts.RETURN)["ansible_facts"]["contains"]["redoubt_gpu"]["contains"]
    assert set(documented) == set(facts)
    for key, value in facts.items():
        text = str(documented[key]["description"])
        rows = value if isinstance(value, list) else [value]
        assert [name for row in rows if isinstance(row, dict) for name in row if name not in text] == [], key
    assert yaml.safe_load(gpu_facts.DOCUMENTATION)["options"]["root"]["default"] == "/"


def test_commands_are_run_for_the_running_system_only(tmp_path: Path) -> None:
    assert gpu_facts.open_host("/", 1).search
    assert gpu_facts.open_host("//", 1).search
    assert gpu_facts.open_host(str(tmp_path), 1).search is None
