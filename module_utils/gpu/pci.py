"""NVIDIA's devices on the PCI bus, as sysfs shows them: needs no driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional, TypeVar

from .host import Host
from .ids import NVIDIA, NVSWITCHES, UNKNOWN, identify

DEVICES = "/sys/bus/pci/devices"
# VGA controller and 3D controller. A virtual function of vGPU is of the same class; `physfn` tells it.
GPU_CLASSES = ("0300", "0302")
BRIDGE_CLASS = "0680"
# Drivers that may hold a GPU that is to be ours; another one (vfio-pci) gives it to a virtual machine.
OURS = (None, "nvidia", "nouveau")
# The switches of a B200 or B300 baseboard are no PCI devices. They are managed over InfiniBand functions (15b3:1021),
# which only their vital product data tell from network cards of the same id (NVIDIA Fabric Manager user guide).
MELLANOX = "15b3"
INFINIBAND_CLASS = "0207"
MANAGEMENT_MARK = b"SW_MNG"
VPD_BYTES = 4096


Row = TypeVar("Row", bound=Mapping[str, Any])


class Device(NamedTuple):
    """One function on the bus: ids in four hex digits, kind the first four of its class."""

    address: str
    vendor: str
    device: str
    subsystem: Optional[str]
    kind: str


def order(address: str) -> list[int]:
    """The numbers in a PCI address, by which it sorts (a domain may have more than four digits)."""
    return [int(part, 16) for part in address.replace(".", ":").split(":")]


def devices(host: Host) -> Optional[list[Device]]:
    """The functions of NVIDIA and of the NVLink management, in bus order; None where there is no PCI bus."""
    if not host.exists(DEVICES):
        return None
    found = []
    for address in host.names(DEVICES):
        folder = f"{DEVICES}/{address}"
        vendor = _digits(host.read(f"{folder}/vendor"))
        if vendor not in (NVIDIA, MELLANOX) or host.exists(f"{folder}/physfn"):
            continue
        device = _digits(host.read(f"{folder}/device"))
        kind = _digits(host.read(f"{folder}/class"))
        if device is not None and kind is not None:
            subsystem = _digits(host.read(f"{folder}/subsystem_device"))
            found.append(Device(address, vendor, device, subsystem, kind[:4]))
    return sorted(found, key=lambda one: order(one.address))


def count_gpus(host: Host) -> Optional[int]:
    """The number of NVIDIA's GPUs that can be used here; None where there is no PCI bus."""
    found = devices(host)
    return None if found is None else len(usable(gpus(host, found)))


def usable(rows: Sequence[Row]) -> list[Row]:
    """Those of the GPUs that no other driver holds: NVIDIA's tools number these, from 0 in bus order."""
    return [row for row in rows if row["bound"] in OURS]


def gpus(host: Host, found: list[Device]) -> list[dict[str, Any]]:
    """A row for each GPU: what the bus and the table of ids tell."""
    rows = []
    for one in found:
        if _is_gpu(one):
            known = identify(one.device, one.subsystem)
            rows.append(
                {
                    **_place(host, one),
                    "subsystem": one.subsystem,
                    "product": known.product,
                    "generation": known.generation,
                    "form": known.form,
                    "memory_mib": known.memory_mib,
                    "mig_capable": known.mig_capable,
                    "nvlink": known.nvlink,
                    "supports_open_module": known.supports_open_module,
                    "needs_open_module": known.needs_open_module,
                }
            )
    return rows


def nvswitches(host: Host, found: list[Device]) -> list[dict[str, Any]]:
    """A row for each NVSwitch on the bus; any other NVIDIA bridge counts too, with product None."""
    rows = []
    for one in found:
        if one.vendor == NVIDIA and one.kind == BRIDGE_CLASS:
            known = NVSWITCHES.get(one.device, UNKNOWN)
            rows.append({**_place(host, one), "product": known.product, "nvlink": known.nvlink})
    return rows


def management(host: Host, found: list[Device]) -> list[dict[str, Any]]:
    """A row for each function over which NVLink 5 switches are managed."""
    rows = []
    for one in found:
        if one.vendor == MELLANOX and one.kind == INFINIBAND_CLASS:
            data = host.read_bytes(f"{DEVICES}/{one.address}/vpd", VPD_BYTES)
            if data is not None and MANAGEMENT_MARK in data:
                rows.append(_place(host, one))
    return rows


def _is_gpu(one: Device) -> bool:
    return one.vendor == NVIDIA and one.kind in GPU_CLASSES


def _place(host: Host, one: Device) -> dict[str, Any]:
    folder = f"{DEVICES}/{one.address}"
    node = host.read(f"{folder}/numa_node")
    return {
        "address": one.address,
        "device": f"{one.vendor}:{one.device}",
        # The kernel writes -1 where it does not know.
        "numa_node": int(node) if node is not None and node.isdigit() else None,
        "bound": host.link_name(f"{folder}/driver"),
    }


def _digits(text: Optional[str]) -> Optional[str]:
    """The hex digits of "0x10de"."""
    return text[2:].lower() if text is not None and text.startswith("0x") and len(text) >= 6 else None
