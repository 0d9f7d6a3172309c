"""nvidia-smi's words: drivers that know less, failures, cells without a value; and CDI specifications."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from module_utils.gpu import smi, toolkit
from module_utils.gpu.host import Answer
from tests.unit.gpu_support import CDI, GpuHost


def test_an_older_driver_is_asked_only_what_it_knows(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "1xA100-MIG").with_driver()
    new = {"gpu_recovery_action", "fabric.state", "fabric.status", smi.PENDING, smi.FAILURE}
    host.smi["help"] = [name for name in host.smi["help"] if name not in new]
    host.smi["remapped"] = [{smi.ADDRESS: "00000000:3B:00.0", smi.PENDING: "1", smi.FAILURE: "0"}]
    gpu = host.facts()["gpus"][0]
    assert (gpu["visible"], gpu["recovery_action"], gpu["fabric_state"]) == (True, None, None)
    assert (gpu["remap_pending"], gpu["remap_failed"]) == (True, False)
    assert len(host.calls()) == 4


def test_a_gpu_without_ecc_and_remapping(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe").with_driver()
    cells = ("ecc.mode.current", "ecc.errors.uncorrected.volatile.total", smi.PENDING, smi.FAILURE, "serial")
    host.smi["rows"][0].update(dict.fromkeys(cells, "[N/A]"))
    host.smi["rows"][1].update(dict.fromkeys(cells, "[Not Supported]"))
    for gpu in host.facts()["gpus"]:
        keys = ("ecc", "ecc_uncorrected", "remap_pending", "remap_failed", "serial", "mig", "mig_pending")
        assert [gpu[key] for key in keys] == [None] * 7


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (0, "", None),
        (18, "Failed to initialize NVML: Driver/library version mismatch", "version_mismatch"),
        (18, "", "version_mismatch"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "no_driver"),
        (6, "No devices were found", "no_devices"),
        # nvidia-smi ends with 0 here.
        (0, "No devices were found", "no_devices"),
        (15, "Unable to determine the device handle for GPU 0000:1B:00.0: GPU is lost.", "gpu_lost"),
        (255, "Unable to determine the device handle for GPU3: 0000:34:00.0: Unknown Error", "gpu_lost"),
        (255, "Failed to initialize NVML: Unknown Error", "failed"),
        (None, "", "timeout"),
    ],
)
def test_failures(code: int | None, text: str, kind: str | None) -> None:
    found, words = smi.failure(Answer(code, text))
    assert found == kind
    assert words == (text or None if kind else None)


def test_lost_gpus_by_address() -> None:
    text = (
        "Unable to determine the device handle for GPU 0000:1B:00.0: GPU is lost.\n"
        "Unable to determine the device handle for GPU3: 0000:34:00.0: Unknown Error\n"
        "Unable to determine the device handle for GPU00000008:01:00.0: Unknown Error\n"
        "Unable to determine the device handle for GPU1: Unknown Error\n"
    )
    assert smi.lost_gpus(text) == ["0000:1b:00.0", "0000:34:00.0", "0008:01:00.0"]


@pytest.mark.parametrize(
    ("told", "sysfs"),
    [("00000000:1B:00.0", "0000:1b:00.0"), ("00000008:01:00.0", "0008:01:00.0"), ("00010000:0A:00.0", "10000:0a:00.0")],
)
def test_addresses(told: str, sysfs: str) -> None:
    assert smi.normal_address(told) == sysfs


def test_messages_between_the_rows_are_no_rows() -> None:
    text = "Warning: infoROM is corrupted at gpu 0000:1B:00.0\n0, 00000000:1B:00.0\n1, nonsense\n"
    text += "2, 00000000:2A:00.0, a cell too many\n"
    assert smi.parse_rows(text, ("index", smi.ADDRESS)) == [{"index": "0", smi.ADDRESS: "00000000:1B:00.0"}]


def test_the_help_of_a_driver() -> None:
    text = '"index"\nZero based index of the GPU.\n\n"pci.bus_id" or "gpu_bus_id"\nPCI bus id.\n\n"temperature.gpu"\n'
    assert smi.known_fields(text) == ("index", "pci.bus_id")


def test_mig_devices_of_several_gpus() -> None:
    text = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n"
        "  MIG 1c.3g.20gb  Device  0: (UUID: MIG-a)\n"
        "  MIG 1g.5gb+me   Device  1: (UUID: MIG-GPU-1/7/0)\n"
    )
    assert smi.mig_devices(text) == {
        "GPU-0": [],
        "GPU-1": [{"profile": "1c.3g.20gb", "uuid": "MIG-a"}, {"profile": "1g.5gb+me", "uuid": "MIG-GPU-1/7/0"}],
    }


def test_cdi_in_json_and_in_other_indents() -> None:
    yaml_text = CDI.format(version="580.1")
    deeper = "kind: 'nvidia.com/gpu'\ncdiVersion: \"0.6.0\"\ndevices:\n    - name: GPU-1\n      containerEdits:\n"
    deeper += "        env:\n        - name: no-device\n    - containerEdits: {}\n      name: '1:0'\n"
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}
    parsed = [toolkit.parse_cdi(text) for text in (yaml_text, deeper, json.dumps(document))]
    assert parsed == [
        {"kind": "nvidia.com/gpu", "version": "0.7.0", "devices": ["0", "all"], "driver": "580.1"},
        {"kind": "nvidia.com/gpu", "version": "0.6.0", "devices": ["GPU-1", "1:0"], "driver": None},
        {"kind": "nvidia.com/gpu", "version": "0.5.0", "devices": ["0", "all"], "driver": None},
    ]


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "kind: amd.com/gpu\n", "kind: nvidia.com", "\x00\xff"])
def test_other_files_are_no_specification(text: str) -> None:
    assert toolkit.parse_cdi(text) is None


def test_a_specification_of_two_drivers_has_none() -> None:
    text = CDI.format(version="580.1") + "# libcuda.so.580.2\n"
    parsed = toolkit.parse_cdi(text)
    assert parsed is not None
    assert parsed["driver"] is None
