"""The stub tools against hardware descriptions and faults, in a folder that plays the host."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lab.stub_nvidia.tools import (
    control,
    dcgmi,
    dkms,
    fabricmanager,
    flat,
    modprobe,
    persistenced,
    smi,
    views,
)
from tests.unit.stub_nvidia_support import DRIVER, fitted, state, write

QUERY = ["--query-gpu=index,uuid,pci.bus_id,memory.total,driver_version", "--format=csv,noheader,nounits"]
Capture = pytest.CaptureFixture[str]


def test_smi_lists_and_queries(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    assert smi.main(["-L"], host) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0] == "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a4c123b1-612d-d272-d137-1c17149d4395)"
    assert smi.main(QUERY, host) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"0, GPU-a4c123b1-612d-d272-d137-1c17149d4395, 00000000:18:00.0, 81559, {DRIVER}"


def test_smi_writes_header_and_units(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "2xL40S-PCIe")
    assert (
        smi.main(["--query-gpu=name,memory.total,fabric.state,mig.mode.current", "--format=csv", "-i", "1"], host) == 0
    )
    header, line = capsys.readouterr().out.splitlines()
    assert header == "name, memory.total [MiB], fabric.state, mig.mode.current"
    assert line.endswith(" MiB, [N/A], [N/A]")


def test_smi_refuses_a_field_that_it_does_not_know(tmp_path: Path, capsys: Capture) -> None:
    assert smi.main(["--query-gpu=name,colour", "--format=csv"], fitted(tmp_path, "8xH100-SXM")) == 2
    assert capsys.readouterr().out.startswith('Field "colour" is not a valid field to query.')


@pytest.mark.parametrize(
    ("description", "changes", "code", "words"),
    [
        (
            "8xH100-SXM",
            {"faults": {"loaded_driver": "580.95.05"}},
            18,
            "Failed to initialize NVML: Driver/library version",
        ),
        (
            "8xH100-SXM",
            {"loaded_driver": None},
            9,
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA",
        ),
        ("none", {}, 6, "No devices were found"),
        ("8xH100-SXM", {"faults": {"lost_gpus": ["0000:18:00.0"]}}, 15, "GPU0: 0000:18:00.0: GPU is lost."),
    ],
)
def test_smi_fails_as_the_real_one(
    tmp_path: Path, capsys: Capture, description: str, changes: dict[str, Any], code: int, words: str
) -> None:
    host = fitted(tmp_path, description)
    state(host, **changes)
    assert smi.main(["-L"], host) == code
    assert words in capsys.readouterr().out


def test_a_missing_gpu_is_not_counted(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    state(host, faults={"missing_gpus": ["0000:2a:00.0"]})
    assert smi.main(["-L"], host) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_memory_errors_are_reported(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    state(host, faults={"ecc_uncorrected": {"0000:18:00.0": 3}, "row_remap_failure": ["0000:2a:00.0"]})
    smi.main(["--query-gpu=ecc.errors.uncorrected.volatile.total", "--format=csv,noheader"], host)
    assert capsys.readouterr().out.split() == ["3", *"0000000"]
    smi.main(["--query-remapped-rows=gpu_bus_id,remapped_rows.failure", "--format=csv,noheader"], host)
    assert "00000000:2A:00.0, Yes" in capsys.readouterr().out
    assert dcgmi.main(["diag", "-r", "1"], host) == 1


def test_persistence_is_a_state_of_the_host(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    assert persistenced.main([], host, stay=False) == 0
    smi.main(["--query-gpu=persistence_mode", "--format=csv,noheader", "-i", "0"], host)
    assert capsys.readouterr().out == "Enabled\n"
    control.main(["boot"], host)
    assert host.state()["persistence"] is False


def test_only_root_changes_a_mode_but_anybody_asks(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    monkeypatch.setattr(type(host), "writable", False)
    assert smi.main(["-pm", "1"], host) == 4
    assert "Insufficient Permissions" in capsys.readouterr().out
    assert smi.main(["-L"], host) == 0
    write(host, "/usr/bin/nvidia-modprobe", "")
    state(host, loaded_driver=None)
    assert smi.main(["-L"], host) == 9


def test_smi_has_the_module_loaded(tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM", loaded=None)
    write(host, "/usr/bin/nvidia-modprobe", "")
    assert smi.main(["-L"], host) == 0
    assert host.driver() == DRIVER


# --- loading the module ---------------------------------------------------------------------------------------------


def test_a_restart_loads_what_is_installed(tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM", loaded="580.95.05")
    assert host.driver() == "580.95.05", "an upgrade alone changes no loaded module"
    control.main(["boot"], host)
    assert host.driver() == DRIVER
    version = host.path(f"{views.TREE}/sys/module/nvidia/version")
    assert version.read_text() == f"{DRIVER}\n"
    assert host.path(f"{views.TREE}/sys/bus/pci/devices/0000:18:00.0/driver").is_symlink()


def test_nodes_follow_the_gpus(tmp_path: Path) -> None:
    host = fitted(tmp_path, "2xL40S-PCIe", loaded=None)
    views.refresh(host)
    assert not list(host.path("/dev").glob("nvidia*"))
    assert modprobe.main(["nvidia"], host) == 0
    nodes = {path.name for path in host.path("/dev").iterdir()}
    assert nodes == {"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}
    assert stat.S_ISCHR(host.path("/dev/nvidia0").stat().st_mode)
    assert modprobe.main(["-r", "nvidia"], host) == 0
    assert not list(host.path("/dev").glob("nvidia*"))


def test_a_driver_in_use_stays(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "2xL40S-PCIe")
    link = host.path("/proc/7/fd/3")
    link.parent.mkdir(parents=True)
    link.symlink_to("/dev/nvidia1")
    assert modprobe.main(["-r", "nvidia_uvm", "nvidia"], host) == 1
    assert "Module nvidia is in use" in capsys.readouterr().err
    assert host.driver() == DRIVER
    link.unlink()
    assert modprobe.main(["-r", "nvidia_uvm", "nvidia"], host) == 0
    assert host.driver() is None


def test_nouveau_keeps_the_driver_out_until_it_is_blacklisted_and_the_host_restarted(
    tmp_path: Path, capsys: Capture
) -> None:
    host = fitted(tmp_path, "8xH100-SXM", loaded=None)
    plain = host.description()
    write(host, "/etc/stub-nvidia/hardware.json", json.dumps({**plain, "nouveau": True}))
    control.main(["boot"], host)
    assert host.driver() is None
    assert host.path(f"{views.TREE}/sys/module/nouveau").is_dir()
    assert modprobe.main(["nvidia"], host) == 1
    assert "No such device" in capsys.readouterr().err
    write(host, "/etc/modprobe.d/nouveau.conf", "blacklist nouveau\n")
    assert modprobe.main(["nvidia"], host) == 1
    control.main(["boot"], host)
    assert host.driver() == DRIVER


def test_secure_boot_refuses_a_module_whose_key_is_not_enrolled(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM", loaded=None)
    write(host, "/etc/stub-nvidia/hardware.json", json.dumps({**host.description(), "secure_boot": True}))
    assert modprobe.main(["nvidia"], host) == 1
    assert "Key was rejected by service" in capsys.readouterr().err
    state(host, mok_enrolled=True)
    assert modprobe.main(["nvidia"], host) == 0


def test_modprobe_finds_no_module_before_the_package(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM", loaded=None)
    host.path("/usr/lib/stub-nvidia/versions/module").unlink()
    assert modprobe.main(["nvidia"], host) == 1
    assert "Module nvidia not found" in capsys.readouterr().err


def test_the_package_puts_its_module_where_modinfo_looks(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    write(host, f"/usr/src/nvidia-{DRIVER}/nvidia.ko", "module")
    kernel = os.uname().release
    control.main(["module-installed", DRIVER], host)
    assert host.path(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko").read_text() == "module"
    assert "/nvidia.ko" in host.path(f"/lib/modules/{kernel}/modules.dep").read_text(), (
        "the CDI unit looks for it there"
    )
    capsys.readouterr()
    dkms.main(["status"], host)
    assert capsys.readouterr().out == f"nvidia/{DRIVER}, {kernel}, x86_64: installed\n"
    link = host.path(f"/var/lib/dkms/nvidia/kernel-{kernel}-x86_64")
    assert (link / "module/nvidia.ko").read_text() == "module"
    control.main(["module-removed", DRIVER], host)
    assert not host.path(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko").exists()
    assert dkms.main(["status"], host) == 0
    assert capsys.readouterr().out == ""


def test_faults_are_set_and_taken_away(tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    control.main(["fault", 'lost_gpus=["0000:18:00.0"]', 'fabric="In Progress"'], host)
    assert host.gpus()[0].lost
    assert host.path(flat.FLAT).read_text().splitlines()[1].endswith("\t1")
    control.main(["fault", "lost_gpus="], host)
    assert host.state()["faults"] == {"fabric": "In Progress"}
    control.main(["fault"], host)
    assert host.state()["faults"] == {}


# --- the fabric -----------------------------------------------------------------------------------------------------


def test_the_fabric_completes_when_its_manager_has_run(tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM", fabricmanager=DRIVER)
    assert {gpu.fabric_state for gpu in host.gpus()} == {"In Progress"}
    assert fabricmanager.main([], host, stay=False) == 0
    assert {(gpu.fabric_state, gpu.fabric_status) for gpu in host.gpus()} == {("Completed", "Success")}
    control.main(["boot"], host)
    assert host.gpus()[0].fabric_state == "In Progress"


def test_a_fabric_manager_of_another_version_refuses(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM", fabricmanager="580.95.05")
    assert fabricmanager.main([], host, stay=False) == 1
    words = f"interface version 580.95.05 don't match with driver version {DRIVER}"
    assert words in capsys.readouterr().err
    assert host.gpus()[0].fabric_state == "In Progress"


def test_without_switches_there_is_nothing_to_do(tmp_path: Path, capsys: Capture) -> None:
    assert fabricmanager.main([], fitted(tmp_path, "2xL40S-PCIe", fabricmanager=DRIVER), stay=False) == 1
    assert "NV_WARN_NOTHING_TO_DO" in capsys.readouterr().err


def test_nvlink5_needs_its_subnet_manager_and_the_infiniband_modules(tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xB200", fabricmanager=DRIVER)
    fabricmanager.main([], host, stay=False)
    assert host.gpus()[0].fabric_state == "In Progress"
    write(host, "/usr/lib/stub-nvidia/versions/nvlsm", "2025.10.14-1\n")
    modprobe.main(["mlx5_ib", "ib_umad"], host)
    assert host.path(f"{views.TREE}/sys/module/ib_umad").is_dir()
    fabricmanager.main([], host, stay=False)
    assert host.gpus()[0].fabric_state == "Completed"
