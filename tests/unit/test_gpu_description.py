"""Hardware descriptions: those of the lab are right, and wrong ones say where."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import gpu_description, gpu_tree
from lab.errors import LabError
from lab.gpu_description import load, names, problems
from module_utils.gpu.ids import NVSWITCHES, identify

Change = Callable[[dict[str, Any]], object]


def test_the_descriptions_that_are_promised() -> None:
    assert names() == ["1xA100-MIG", "2xL40S-PCIe", "8xB200", "8xH100-SXM", "none"]


@pytest.mark.parametrize("name", names())
def test_a_description_agrees_with_the_table_of_ids(name: str) -> None:
    description = load(name)
    for gpu in description["gpus"]:
        known = identify(gpu["device"][5:], gpu["subsystem"][5:])
        assert (known.product, known.memory_mib, known.mig_capable) == (
            gpu["product"], gpu["memory_mib"], gpu["mig_capable"],
        )  # fmt: skip
    assert {switch["device"][5:] for switch in description["nvswitches"]} <= set(NVSWITCHES)
    assert [gpu["address"] for gpu in description["gpus"]] == sorted(gpu["address"] for gpu in description["gpus"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda one: one.pop("nouveau"), "description: 'nouveau' is a required property"),
        (lambda one: one.update(gpu=[]), "description: Additional properties are not allowed ('gpu' was unexpected)"),
        (lambda one: one.update(secure_boot="no"), "secure_boot: 'no' is not of type 'boolean', 'null'"),
        (lambda one: one["gpus"][1].update(address="1b:00.0"), "gpus[1].address: '1b:00.0' does not match"),
        (lambda one: one["gpus"][0].update(device="2330"), "gpus[0].device: '2330' does not match"),
        (lambda one: one["gpus"][0].update(memory_mib=0), "gpus[0].memory_mib: 0 is less than the minimum of 1"),
        (lambda one: one["gpus"][0].update(mig_mode="on"), "gpus[0].mig_mode: 'on' is not one of"),
        (lambda one: one["gpus"][1].update(address="0000:18:00.0"), "gpus[1].address: 0000:18:00.0 is gpus[0]'s"),
        (lambda one: one["nvswitches"][0].update(address="0000:18:00.0"), "nvswitches[0].address: 0000:18:00.0 is"),
        (lambda one: one["gpus"][2].update(mig_capable=False, mig_mode="enabled"), "gpus[2].mig_mode: enabled, but"),
        (
            lambda one: one["gpus"][2].update(mig_devices=[{"profile": "1g.10gb", "uuid": "MIG-1", "gi": 7, "ci": 0}]),
            "gpus[2].mig_devices: not empty, but mig_mode is disabled",
        ),
        (lambda one: one.update(fabric=None), "fabric: null, but there are switches to manage"),
    ],
)  # fmt: skip
def test_a_wrong_description_says_where(change: Change, line: str) -> None:
    description = copy.deepcopy(load("8xH100-SXM"))
    assert problems(description) == []
    change(description)
    assert [found for found in problems(description) if found.startswith(line)]


def test_a_description_that_is_not_there() -> None:
    with pytest.raises(LabError, match=r"no hardware description '9xZ'; there are: 1xA100-MIG,"):
        load("9xZ")


def test_a_file_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yml").write_text((gpu_description.FOLDER / "none.yml").read_text())
    (tmp_path / "text.yml").write_text("just words\n")
    monkeypatch.setattr(gpu_description, "FOLDER", tmp_path)
    with pytest.raises(LabError, match="name: is 'none', the file's is 'other'"):
        load("other")
    with pytest.raises(
        LabError, match=r"lab/gpus/text.yml is no hardware description:\n  description: 'just words' is"
    ):
        load("text")


def test_a_tree_written_again_keeps_nothing_of_before(tmp_path: Path) -> None:
    gpu_tree.write(load("8xH100-SXM"), {"loaded_driver": "580.95.05"}, tmp_path)
    before = (tmp_path / "sys/bus/pci/devices").stat().st_ino
    assert (tmp_path / "dev/nvidia7").exists()
    gpu_tree.write({**load("2xL40S-PCIe"), "nouveau": True}, None, tmp_path)
    assert (tmp_path / "sys/bus/pci/devices").stat().st_ino == before
    assert len(list((tmp_path / "sys/bus/pci/devices").iterdir())) == 2
    assert [path.name for path in (tmp_path / "sys/module").iterdir()] == ["nouveau"]
    assert list((tmp_path / "dev").iterdir()) == []


def test_a_fault_makes_the_loaded_driver_another() -> None:
    state = {"loaded_driver": "580.126.20", "faults": {"loaded_driver": "580.95.05"}}
    assert gpu_tree.loaded_driver(state) == "580.95.05"
    assert gpu_tree.loaded_driver({"loaded_driver": None, "faults": {}}) is None
