"""What a host's GPUs are with a driver, and each fault that a host can have."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab import gpu_description
from tests.unit.gpu_support import CDI, OTHER, SYSTEMD, VERSION, GpuHost, systemd

LOST_WORDS = "Unable to determine the device handle for GPU 0000:9A:00.0: GPU is lost.  Reboot the system to recover"


@pytest.fixture
def h100(tmp_path: Path) -> GpuHost:
    return GpuHost(tmp_path, "8xH100-SXM").with_driver()


@pytest.mark.parametrize("name", gpu_description.names())
def test_each_description_with_a_driver(tmp_path: Path, name: str) -> None:
    host = GpuHost(tmp_path, name).with_driver()
    description = host.description
    facts = host.facts()
    assert len(facts["gpus"]) == len(description["gpus"])
    for index, (gpu, is_) in enumerate(zip(facts["gpus"], description["gpus"], strict=True)):
        assert (gpu["index"], gpu["uuid"], gpu["serial"], gpu["name"]) == (
            index, is_["uuid"], is_["serial"], is_["product"],
        )  # fmt: skip
        assert (gpu["visible"], gpu["lost"], gpu["bound"]) == (True, False, "nvidia")
        assert (gpu["memory_mib"], gpu["ecc"], gpu["ecc_uncorrected"]) == (is_["memory_mib"], is_["ecc"], 0)
        assert (gpu["remap_pending"], gpu["remap_failed"], gpu["recovery_action"]) == (False, False, "None")
        assert gpu["mig"] == (is_["mig_mode"] == "enabled" if is_["mig_capable"] else None)
        assert gpu["mig_devices"] == [{key: mig[key] for key in ("profile", "uuid")} for mig in is_["mig_devices"]]
        fabric = description["fabric"] or {"state": None, "status": None}
        assert (gpu["fabric_state"], gpu["fabric_status"]) == (fabric["state"], fabric["status"])
        assert (gpu["compute_mode"], gpu["persistence"]) == ("Default", True)
    driver = facts["driver"]
    assert (driver["loaded"], driver["installed"], driver["library"]) == (VERSION, VERSION, VERSION)
    assert (driver["loaded_flavour"], driver["installed_flavour"]) == ("open", "open")
    assert "/dev/nvidiactl" in driver["nodes"]
    assert ("/dev/nvidia-nvswitch0" in driver["nodes"]) == bool(description["nvswitches"])
    assert facts["reboot"] == {"driver": False, "system": False, "packages": []}
    assert (facts["smi"]["error"], facts["smi"]["installed"]) == (None, True)
    assert facts["toolkit"]["version"] == "1.20.0"
    assert facts["fabric_manager"] == VERSION


def test_few_processes(h100: GpuHost) -> None:
    h100.facts()
    assert [call.partition("=")[0] for call in h100.calls()] == ["--help-query-gpu", "--query-gpu"]


def test_library_of_another_version_than_the_loaded_module(h100: GpuHost) -> None:
    h100.tree(OTHER)
    h100.fails("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.126", 18)
    facts = h100.facts()
    assert facts["smi"]["error"] == "version_mismatch"
    assert facts["smi"]["text"].endswith("NVML library version: 580.126")
    assert (facts["driver"]["loaded"], facts["driver"]["library"]) == (OTHER, VERSION)
    # What is known without nvidia-smi stays known, and nothing is said of what is not.
    assert {(gpu["visible"], gpu["lost"], gpu["uuid"]) for gpu in facts["gpus"]} == {(None, False, None)}
    assert {gpu["memory_mib"] for gpu in facts["gpus"]} == {81559}


def test_module_installed_but_another_loaded(h100: GpuHost) -> None:
    h100.tree(OTHER)
    h100.file("run/reboot-required", "*** System restart required ***\n")
    h100.file("run/reboot-required.pkgs", "linux-base\nnvidia-dkms-580-open\nlinux-base\n")
    facts = h100.facts()
    assert facts["reboot"] == {"driver": True, "system": True, "packages": ["linux-base", "nvidia-dkms-580-open"]}


def test_module_installed_but_none_loaded(h100: GpuHost) -> None:
    h100.tree(None)
    h100.fails("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that", 9)
    facts = h100.facts()
    assert facts["smi"]["error"] == "no_driver"
    assert (facts["driver"]["loaded"], facts["driver"]["installed"]) == (None, VERSION)
    assert facts["reboot"]["driver"] is False


def test_proprietary_module(h100: GpuHost) -> None:
    h100.says("modinfo", f"version: {OTHER}\nlicense: NVIDIA")
    h100.file(
        "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {OTHER}  Tue Sep 23 09:55:41 UTC 2025\nGCC version: 13.3.0",
    )
    (h100.root / "sys/module/nvidia/version").unlink()
    driver = h100.facts()["driver"]
    assert (driver["loaded"], driver["loaded_flavour"]) == (OTHER, "proprietary")
    assert (driver["installed"], driver["installed_flavour"]) == (OTHER, "proprietary")


def test_module_under_debians_name(h100: GpuHost) -> None:
    chosen = "/usr/lib/nvidia/current-open"
    h100.command(
        "modinfo",
        f'[ "$1" = nvidia-current-open ] || exit 1; echo "version: {OTHER}"; echo "license: Dual MIT/GPL"',
        "Debian's own package",
    )
    assert h100.facts()["driver"]["installed"] is None
    h100.file("etc/alternatives/README", "")
    (h100.root / "etc/alternatives/nvidia").symlink_to(chosen)
    assert [h100.facts()["driver"][key] for key in ("installed", "installed_flavour")] == [OTHER, "open"]


def test_modinfo_knows_no_module(h100: GpuHost) -> None:
    h100.says("modinfo", "modinfo: ERROR: Module nvidia not found.", 1)
    driver = h100.facts()["driver"]
    assert (driver["installed"], driver["installed_flavour"]) == (None, None)


def test_several_libraries(h100: GpuHost) -> None:
    h100.file(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{OTHER}", "")
    h100.file("usr/lib64/libnvidia-ml.so.1", "")
    driver = h100.facts()["driver"]
    assert (driver["library"], driver["libraries"]) == (VERSION, [OTHER, VERSION])


def test_seven_of_eight_gpus(h100: GpuHost) -> None:
    del h100.smi["rows"][4]
    gpus = h100.facts()["gpus"]
    assert [gpu["address"] for gpu in gpus if gpu["visible"] is False] == ["0000:9a:00.0"]
    assert gpus[4]["lost"] is False
    assert gpus[4]["product"] == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("index", ["", "4: "])
def test_a_gpu_that_is_lost(h100: GpuHost, index: str) -> None:
    del h100.smi["rows"][4]
    h100.smi.update(before=LOST_WORDS.replace("GPU 0000", f"GPU{index}0000" if index else "GPU 0000") + "\n", code=15)
    facts = h100.facts()
    assert facts["smi"]["error"] == "gpu_lost"
    assert [gpu["address"] for gpu in facts["gpus"] if gpu["lost"]] == ["0000:9a:00.0"]
    assert [gpu["visible"] for gpu in facts["gpus"]].count(True) == 7


def test_a_lost_gpu_leaves_no_rows_at_all(h100: GpuHost) -> None:
    h100.smi.update(before=LOST_WORDS + "\n", code=15, rows=[])
    facts = h100.facts()
    assert [gpu["lost"] for gpu in facts["gpus"]].count(True) == 1
    assert facts["smi"]["error"] == "gpu_lost"


def test_a_gpu_that_is_lost_in_its_cells(h100: GpuHost) -> None:
    h100.smi["rows"][4].update(
        {"ecc.errors.uncorrected.volatile.total": "[GPU is lost]", "memory.total": "[GPU is lost]"}
    )
    facts = h100.facts()
    gpu = facts["gpus"][4]
    assert (gpu["lost"], gpu["visible"], gpu["ecc_uncorrected"], gpu["memory_mib"]) == (True, False, None, 81559)
    assert facts["smi"]["error"] == "gpu_lost"


def test_a_gpu_that_left_the_bus(h100: GpuHost) -> None:
    del h100.description["gpus"][4]
    h100.tree(VERSION)
    facts = h100.facts()
    assert len(facts["gpus"]) == 7
    assert facts["smi"]["off_bus"] == ["0000:9a:00.0"]


def test_no_devices(h100: GpuHost) -> None:
    h100.smi.update(before="No devices were found\n", code=6, rows=[])
    facts = h100.facts()
    assert facts["smi"]["error"] == "no_devices"
    assert {gpu["visible"] for gpu in facts["gpus"]} == {False}


def test_a_gpu_that_hangs_ends_in_time(h100: GpuHost) -> None:
    h100.smi["sleep"] = 30
    h100.seconds = 1
    started = time.monotonic()
    facts = h100.facts()
    assert facts["smi"]["error"] == "timeout"
    assert time.monotonic() - started < h100.smi["sleep"]
    # The other commands are asked first.
    assert facts["toolkit"]["version"] == "1.20.0"


def test_fabric_in_progress(h100: GpuHost) -> None:
    for row in h100.smi["rows"]:
        row.update({"fabric.state": "In Progress", "fabric.status": "N/A"})
    h100.smi["rows"][0].update({"fabric.state": "state  Completed", "fabric.status": "status Success"})
    gpus = h100.facts()["gpus"]
    assert [(gpu["fabric_state"], gpu["fabric_status"]) for gpu in gpus] == [
        ("Completed", "Success"), *[("In Progress", None)] * 7,
    ]  # fmt: skip


def test_fabric_manager_one_version_off_and_failed(h100: GpuHost) -> None:
    h100.says("nv-fabricmanager", f"Fabric Manager version is : {OTHER}")
    h100.says("systemctl", systemd({**SYSTEMD, "fabricmanager": "failed"}))
    facts = h100.facts()
    assert (facts["driver"]["loaded"], facts["fabric_manager"]) == (VERSION, OTHER)
    assert facts["services"]["fabric_manager"] == {"active": "failed", "enabled": True}
    assert facts["services"]["persistenced"] == {"active": "active", "enabled": True}
    assert facts["services"]["imex"] is None


def test_systemd_does_not_answer(h100: GpuHost) -> None:
    h100.says("systemctl", "System has not been booted with systemd as init system (PID 1). Can't operate.", 1)
    assert set(h100.facts()["services"].values()) == {None}


def test_memory_errors_and_what_to_do(h100: GpuHost) -> None:
    h100.smi["rows"][2].update(
        {
            "ecc.errors.uncorrected.volatile.total": "3",
            "remapped_rows.pending": "Yes",
            "remapped_rows.failure": "1",
            "gpu_recovery_action": "Drain and Reset",
        }
    )
    gpu = h100.facts()["gpus"][2]
    assert (gpu["ecc_uncorrected"], gpu["remap_pending"], gpu["remap_failed"]) == (3, True, True)
    assert gpu["recovery_action"] == "Drain and Reset"


def test_mig_mode_waits_for_a_reset(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "1xA100-MIG").with_driver()
    host.smi["rows"][0]["mig.mode.current"] = "Disabled"
    gpu = host.facts()["gpus"][0]
    assert (gpu["mig"], gpu["mig_pending"], gpu["mig_devices"]) == (False, True, [])
    assert not [call for call in host.calls() if call == "-L"]


def test_stale_cdi(h100: GpuHost) -> None:
    spec = h100.facts()["toolkit"]["cdi"]
    assert spec == [
        {
            "path": "/run/cdi/nvidia.yaml",
            "kind": "nvidia.com/gpu",
            "version": "0.7.0",
            "devices": ["0", "all"],
            "driver": VERSION,
            "stale": False,
        }
    ]
    h100.file("etc/cdi/nvidia.yaml", CDI.format(version=OTHER))
    assert [(one["path"], one["stale"]) for one in h100.facts()["toolkit"]["cdi"]] == [
        ("/etc/cdi/nvidia.yaml", True),
        ("/run/cdi/nvidia.yaml", False),
    ]
    h100.tree(None)
    assert {one["stale"] for one in h100.facts()["toolkit"]["cdi"]} == {None}


def test_dkms(h100: GpuHost) -> None:
    base = "var/lib/dkms/nvidia"
    for version, kernel in ((VERSION, "6.8.0-1-generic"), (VERSION, "6.8.0-2-generic"), (OTHER, None)):
        h100.file(f"{base}/{version}/source", "")
        if kernel:
            h100.file(f"{base}/{version}/{kernel}/x86_64/module/nvidia.ko.zst", "")
    h100.file(f"{base}/{VERSION}/build/make.log", "")
    h100.file("var/lib/dkms/zfs/2.2.2/source", "")
    link = h100.root / base / "kernel-6.8.0-1-generic-x86_64"
    link.symlink_to(f"{VERSION}/6.8.0-1-generic/x86_64")
    assert [(row["version"], row["kernel"], row["state"]) for row in h100.facts()["driver"]["dkms"]] == [
        (VERSION, "6.8.0-1-generic", "installed"),
        (VERSION, "6.8.0-2-generic", "built"),
        (OTHER, None, "added"),
    ]
