"""`nvidia-smi`: lists and queries the fake GPUs, with the real one's messages and exit statuses.

Exit statuses: 2 invalid argument, 4 no permission, 6 no device, 9 driver not loaded, 15 GPU lost,
18 versions differ (NVML's numbers).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from . import driver, views
from .host import Gpu, Host

NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
Getter = Callable[[Gpu, dict[str, Any]], object]
Table = dict[str, tuple[str, Getter]]
NONE = "[N/A]"


def _switch(value: bool, capable: bool = True) -> str:
    return ("Enabled" if value else "Disabled") if capable else NONE


#: Field: its unit and how it is found. The numbers that no description has are those of an idle GPU.
FIELDS: Table = {
    "index": ("", lambda gpu, _: gpu.index),
    "count": ("", lambda _, about: about["count"]),
    "uuid": ("", lambda gpu, _: gpu.uuid),
    "name": ("", lambda gpu, _: gpu.product),
    "serial": ("", lambda gpu, _: gpu.serial),
    "pci.bus_id": ("", lambda gpu, _: gpu.bus_id),
    "pci.device_id": ("", lambda gpu, _: "0x" + "".join(reversed(gpu.device.upper().split(":")))),
    "driver_version": ("", lambda _, about: about["driver"]),
    "vbios_version": ("", lambda _gpu, _: NONE),
    "persistence_mode": ("", lambda _, about: _switch(about["persistence"])),
    "pstate": ("", lambda _gpu, _: "P0"),
    "temperature.gpu": ("", lambda _gpu, _: 30),
    "power.draw": ("W", lambda _gpu, _: "70.00"),
    "power.limit": ("W", lambda _gpu, _: NONE),
    "utilization.gpu": ("%", lambda _gpu, _: 0),
    "utilization.memory": ("%", lambda _gpu, _: 0),
    "memory.total": ("MiB", lambda gpu, _: gpu.memory_mib),
    "memory.reserved": ("MiB", lambda _gpu, _: 0),
    "memory.used": ("MiB", lambda _gpu, _: 0),
    "memory.free": ("MiB", lambda gpu, _: gpu.memory_mib),
    "clocks.sm": ("MHz", lambda _gpu, _: 345),
    "clocks_event_reasons.active": ("", lambda _gpu, _: "0x0000000000000001"),
    "ecc.mode.current": ("", lambda gpu, _: _switch(gpu.ecc)),
    "ecc.mode.pending": ("", lambda gpu, _: _switch(gpu.ecc)),
    "ecc.errors.corrected.volatile.total": ("", lambda gpu, _: 0 if gpu.ecc else NONE),
    "ecc.errors.uncorrected.volatile.total": ("", lambda gpu, _: gpu.ecc_uncorrected if gpu.ecc else NONE),
    "mig.mode.current": ("", lambda gpu, _: _switch(gpu.mig_enabled, gpu.mig_capable)),
    "mig.mode.pending": ("", lambda gpu, _: _switch(gpu.mig_enabled, gpu.mig_capable)),
    "compute_mode": ("", lambda _gpu, _: "Default"),
    "pcie.link.gen.current": ("", lambda _gpu, _: NONE),
    "pcie.link.width.current": ("", lambda _gpu, _: NONE),
    "fabric.state": ("", lambda gpu, _: gpu.fabric_state),
    "fabric.status": ("", lambda gpu, _: gpu.fabric_status),
    "gpu_recovery_action": ("", lambda _gpu, _: "None"),
}
ALIASES = {"gpu_uuid": "uuid", "gpu_name": "name", "gpu_serial": "serial", "gpu_bus_id": "pci.bus_id"}
#: Fields of --query-remapped-rows.
ROWS: Table = {
    "gpu_uuid": ("", lambda gpu, _: gpu.uuid),
    "gpu_bus_id": ("", lambda gpu, _: gpu.bus_id),
    "remapped_rows.correctable": ("", lambda _gpu, _: 0),
    "remapped_rows.uncorrectable": ("", lambda _gpu, _: 0),
    "remapped_rows.pending": ("", lambda _gpu, _: "No"),
    "remapped_rows.failure": ("", lambda gpu, _: "Yes" if gpu.row_remap_failure else "No"),
}


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    host = host or Host()
    if options.help_query_gpu:
        others = {name: other for other, name in ALIASES.items()}
        for name in FIELDS:
            print(f'"{name}"' + (f' or "{others[name]}"' if name in others else "") + "\nstub: played on lab hosts\n")
        return 0
    library = host.component("nvml")
    if library is None:
        print("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.")
        return 12
    if host.driver() is None and host.writable and host.path("/usr/bin/nvidia-modprobe").exists():
        # The real one has the module loaded, for any user: nvidia-modprobe is setuid there.
        driver.load(host)
        views.refresh(host)
    loaded = host.driver()
    if loaded is None:
        print(NOT_LOADED)
        return 9
    if loaded != library:
        print("Failed to initialize NVML: Driver/library version mismatch")
        print(f"NVML library version: {library.rpartition('.')[0]}")
        return 18
    if options.version:
        print(f"NVIDIA-SMI version  : {host.component('smi')}\nNVML version        : {library.rpartition('.')[0]}")
        print(f"DRIVER version      : {loaded}\nstub                : of the Redoubt lab")
        return 0
    gpus = host.gpus()
    if options.id:
        gpus = [gpu for gpu in gpus if _chosen(gpu, options.id.split(","))]
    if not gpus:
        print("No devices were found")
        return 6
    if options.persistence_mode is not None or options.multi_instance_gpu is not None:
        return _set(host, gpus, options)
    about = {"driver": loaded, "count": len(host.gpus()), "persistence": host.state()["persistence"]}
    return _show(gpus, about, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nvidia-smi", description="stub of the Redoubt lab, not NVIDIA's")
    parser.add_argument("-L", "--list-gpus", action="store_true")
    parser.add_argument("-q", "--query", action="store_true")
    parser.add_argument("--query-gpu")
    parser.add_argument("--query-remapped-rows")
    parser.add_argument("--query-compute-apps")
    parser.add_argument("--format", default="csv")
    parser.add_argument("--help-query-gpu", action="store_true")
    parser.add_argument("-i", "--id")
    parser.add_argument("-pm", "--persistence-mode", type=int, choices=(0, 1))
    parser.add_argument("-mig", "--multi-instance-gpu", type=int, choices=(0, 1))
    parser.add_argument("--version", action="store_true")
    return parser


def _chosen(gpu: Gpu, words: list[str]) -> bool:
    names = {str(gpu.index), gpu.uuid, gpu.bus_id, gpu.address.upper(), gpu.serial}
    return any(word in names or word.upper() in names for word in words)


def _set(host: Host, gpus: list[Gpu], options: argparse.Namespace) -> int:
    if not host.writable:
        print("Unable to change the mode: Insufficient Permissions\nTerminating early due to previous errors.")
        return 4
    mode = options.persistence_mode
    for gpu in gpus:
        if mode is not None:
            host.update(lambda state: state.update(persistence=bool(mode)))
            print(f"{'Enabled' if mode else 'Disabled'} persistence mode for GPU {gpu.bus_id}.")
            continue
        if not gpu.mig_capable:
            print(f"Unable to enable MIG Mode for GPU {gpu.bus_id}: Not Supported")
            return 3
        mig = "enabled" if options.multi_instance_gpu else "disabled"
        change = {gpu.uuid: {"mode": mig, "devices": []}}
        host.update(partial(_set_mig, change))
        print(f"{'Enabled' if options.multi_instance_gpu else 'Disabled'} MIG Mode for GPU {gpu.bus_id}")
    views.refresh(host)
    print("All done.")
    return 0


def _set_mig(change: dict[str, Any], state: dict[str, Any]) -> None:
    state["mig"].update(change)


def _show(gpus: list[Gpu], about: dict[str, Any], options: argparse.Namespace) -> int:
    lost = [gpu for gpu in gpus if gpu.lost]
    for gpu in lost:
        where = f"GPU{gpu.index}: {gpu.address.upper()}"
        print(f"Unable to determine the device handle for {where}: GPU is lost.  Reboot the system to recover this GPU")
    seen = [gpu for gpu in gpus if not gpu.lost]
    if options.query_gpu or options.query_remapped_rows:
        table = FIELDS if options.query_gpu else ROWS
        code = _csv(seen, about, table, options.query_gpu or options.query_remapped_rows, options.format.split(","))
    elif options.query_compute_apps:
        if "noheader" not in options.format:
            print(options.query_compute_apps.replace(",", ", "))
        code = 0
    elif options.list_gpus:
        code = _list(seen)
    else:
        code = _text(seen, about)
    return code or (15 if lost else 0)


def _csv(gpus: list[Gpu], about: dict[str, Any], table: Table, query: str, form: list[str]) -> int:
    names = [name.strip() for name in query.split(",")]
    fields = []
    for name in names:
        known = table.get(name) or table.get(ALIASES.get(name, ""))
        if known is None:
            print(f'Field "{name}" is not a valid field to query.\n')
            return 2
        fields.append(known)
    if "noheader" not in form:
        print(", ".join(name + (f" [{unit}]" if unit else "") for name, (unit, _) in zip(names, fields, strict=True)))
    for gpu in gpus:
        words = [(str(get(gpu, about)), unit) for unit, get in fields]
        plain = "nounits" in form
        print(", ".join(word if plain or not unit or word == NONE else f"{word} {unit}" for word, unit in words))
    return 0


def _list(gpus: list[Gpu]) -> int:
    for gpu in gpus:
        print(f"GPU {gpu.index}: {gpu.product} (UUID: {gpu.uuid})")
        for number, device in enumerate(gpu.mig_devices):
            print(f"  MIG {device['profile']:<14} Device {number:>2}: (UUID: {device['uuid']})")
    return 0


def _text(gpus: list[Gpu], about: dict[str, Any]) -> int:
    print(f"==============NVSMI LOG============== (stub)\n\nDriver Version : {about['driver']}")
    print(f"Attached GPUs  : {about['count']}")
    for gpu in gpus:
        print(f"\nGPU {gpu.bus_id}\n    Product Name     : {gpu.product}\n    GPU UUID         : {gpu.uuid}")
        print(f"    Persistence Mode : {_switch(about['persistence'])}")
        print(f"    MIG Mode         : {_switch(gpu.mig_enabled, gpu.mig_capable)}")
        print(f"    Fabric\n        State  : {gpu.fabric_state}\n        Status : {gpu.fabric_status}")
    return 0
