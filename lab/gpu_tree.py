"""A stub of what the kernel shows of a GPU host: the parts of /sys, /proc and /dev that concern NVIDIA."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PCI = "sys/bus/pci"
#: What is written, and emptied first, so that a host may have these folders mounted while they change.
PARTS = (f"{PCI}/devices", f"{PCI}/drivers", "sys/module", "sys/firmware", "proc/driver", "dev")
# VGA-less GPU, NVSwitch and InfiniBand controller, as the kernel writes a class.
GPU_CLASS, BRIDGE_CLASS, INFINIBAND_CLASS = "0x030200", "0x068000", "0x020700"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# The variable may be read before and after the operating system starts: its attributes, in little-endian order.
EFI_ATTRIBUTES = b"\x06\x00\x00\x00"
#: What marks the vital product data of a function that manages NVLink switches.
MANAGEMENT_VPD = b"\x82\x10\x00NVLink managementSMDL=SW_MNG"


def write(description: Mapping[str, Any], state: Mapping[str, Any] | None, folder: Path) -> None:
    """Write the tree of a checked description under the folder, which then stands for /.

    The state is that of the stub packages ({"loaded_driver": VERSION or null, "faults": {"loaded_driver": VERSION}});
    None: before any driver. GPUs that nvidia-smi misses or loses stay on the bus, as they do in a machine.
    """
    for part in PARTS:
        _empty(folder / part)
    loaded = loaded_driver(state)
    nouveau = description["nouveau"] and loaded is None
    _devices(description, folder / PCI, "nvidia" if loaded else "nouveau" if nouveau else None)
    if nouveau:
        (folder / "sys/module/nouveau").mkdir()
    if loaded is not None:
        _driver(description, loaded, folder)
    if description["secure_boot"] is not None:
        _file(folder / SECURE_BOOT, EFI_ATTRIBUTES + bytes([description["secure_boot"]]))


def loaded_driver(state: Mapping[str, Any] | None) -> str | None:
    """The version of the module in the kernel, which a fault may make another than the packages'."""
    if state is None:
        return None
    version = state.get("faults", {}).get("loaded_driver") or state.get("loaded_driver")
    return None if version is None else str(version)


def _devices(description: Mapping[str, Any], bus: Path, gpu_driver: str | None) -> None:
    for gpu in description["gpus"]:
        _device(bus, gpu, GPU_CLASS, gpu_driver)
    for switch in description["nvswitches"]:
        _device(bus, switch, BRIDGE_CLASS, "nvidia-nvswitch" if gpu_driver == "nvidia" else None)
    for port in description["infiniband"]:
        _device(bus, port, INFINIBAND_CLASS, "mlx5_core")
        _file(bus / "devices" / port["address"] / "vpd", MANAGEMENT_VPD)


def _device(bus: Path, device: Mapping[str, Any], kind: str, driver: str | None) -> None:
    vendor, number = device["device"].split(":")
    subsystem_vendor, subsystem = device.get("subsystem", f"{vendor}:0000").split(":")
    folder = bus / "devices" / device["address"]
    texts = {
        "vendor": f"0x{vendor}",
        "device": f"0x{number}",
        "subsystem_vendor": f"0x{subsystem_vendor}",
        "subsystem_device": f"0x{subsystem}",
        "class": kind,
        "numa_node": str(device.get("numa_node", -1)),
    }
    for name, text in texts.items():
        _file(folder / name, f"{text}\n".encode())
    if driver is not None:
        (bus / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(f"../../drivers/{driver}")


def _driver(description: Mapping[str, Any], version: str, folder: Path) -> None:
    _file(folder / "sys/module/nvidia/version", f"{version}\n".encode())
    told = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (stub)\n"
    _file(folder / "proc/driver/nvidia/version", told.encode())
    nodes = [f"nvidia{number}" for number in range(len(description["gpus"]))] + ["nvidiactl", "nvidia-uvm"]
    if description["nvswitches"]:
        nodes += ["nvidia-nvswitchctl", *(f"nvidia-nvswitch{n}" for n in range(len(description["nvswitches"])))]
    for node in nodes:
        _file(folder / "dev" / node, b"")


def _file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
