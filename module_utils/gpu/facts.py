"""All of it together: one document of the same shape for every host."""

from __future__ import annotations

from typing import Any

from . import driver, pci, smi, toolkit
from .host import Host


def gather(host: Host) -> dict[str, Any]:
    """The facts that gpu_facts documents."""
    found = pci.devices(host)
    nvidia = driver.driver(host)
    above = {
        "toolkit": toolkit.toolkit(host, nvidia["loaded"]),
        "docker": toolkit.docker(host),
        "services": toolkit.services(host),
        "fabric_manager": toolkit.fabric_manager_version(host),
    }
    # Last, since it may use up the time: a GPU that hangs holds nvidia-smi.
    shown = cards(host, found or [])
    return {
        "pci": found is not None,
        "nvswitches": pci.nvswitches(host, found or []),
        "nvlink_management": pci.management(host, found or []) if shown["gpus"] else [],
        "driver": nvidia,
        **shown,
        "secure_boot": driver.secure_boot(host),
        "reboot": driver.reboot(host, nvidia),
        **above,
    }


def cards(host: Host, found: list[pci.Device]) -> dict[str, Any]:
    """The parts `gpus` and `smi` of the document: the GPUs of the bus, and what nvidia-smi says of them."""
    gpus = pci.gpus(host, found)
    report = smi.ask(host)
    return {
        "gpus": [merge(gpu, report) for gpu in gpus],
        "smi": {
            "installed": report.installed,
            "driver": report.driver,
            "error": report.error,
            "text": report.text,
            # What nvidia-smi knows and the bus does not: a GPU that left the bus since the driver took it.
            "off_bus": sorted({*report.rows, *report.lost} - {gpu["address"] for gpu in gpus}),
        },
    }


def merge(gpu: dict[str, Any], report: smi.Report) -> dict[str, Any]:
    """A GPU of the bus with what nvidia-smi says of it; the bus and the table stand where it says nothing."""
    at = gpu["address"]
    row = report.rows.get(at)
    told = row if row is not None else smi.gpu_row({}, [])
    answered = bool(report.rows or report.lost) or report.error == smi.NO_DEVICES
    return {
        **gpu,
        **told,
        # What the driver counts is what can be used; the table only says what to expect before there is one.
        "memory_mib": told["memory_mib"] or gpu["memory_mib"],
        "visible": (row is not None and at not in report.lost) if answered else None,
        "lost": at in report.lost,
    }
