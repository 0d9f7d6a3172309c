"""What stands on the driver: container toolkit, CDI specifications, the engine that reads them, NVIDIA's services."""

from __future__ import annotations

import json
import re
from typing import Any, Optional

from .host import Host

# /var/run is a link to /run wherever systemd runs.
CDI_FOLDERS = ("/etc/cdi", "/run/cdi")
CDI_KIND = "nvidia.com/"
CDI_BYTES = 8 << 20
DRIVER_LIBRARY = re.compile(r"lib(?:nvidia-ml|cuda)\.so\.([0-9]+(?:\.[0-9]+)+)")
SERVICES = {
    "fabric_manager": "nvidia-fabricmanager.service",
    "persistenced": "nvidia-persistenced.service",
    "cdi_refresh": "nvidia-cdi-refresh.service",
    "imex": "nvidia-imex.service",
}
PROPERTIES = "Id,LoadState,ActiveState,UnitFileState"


def toolkit(host: Host, loaded: Optional[str]) -> dict[str, Any]:
    """Version of nvidia-ctk, and the CDI specifications compared with the loaded driver."""
    answer = host.run("nvidia-ctk", "--version")
    match = re.search(r"version\s+v?(\d\S*)", answer.text) if answer is not None else None
    specs = [spec for folder in CDI_FOLDERS for spec in _specs(host, folder, loaded)]
    return {"version": match.group(1) if match else None, "cdi": specs}


def docker(host: Host) -> dict[str, Any]:
    """The running engine's version, and whether it resolves CDI devices; None where no engine answers."""
    answer = host.run("docker", "info", "--format", "{{json .}}")
    # Warnings of the client stand on lines of their own.
    lines = answer.text.splitlines() if answer is not None and answer.code == 0 else []
    try:
        about = json.loads(next((line for line in lines if line.startswith("{")), "{}"))
    except ValueError:
        about = {}
    version = about.get("ServerVersion")
    return {"version": version, "cdi": bool(about.get("CDISpecDirs")) if version else None}


def services(host: Host) -> dict[str, Optional[dict[str, Any]]]:
    """Each service's {active, enabled}; None for one that is not installed, or where systemd does not answer."""
    answer = host.run("systemctl", "show", f"--property={PROPERTIES}", *SERVICES.values())
    units = {}
    for block in (answer.text if answer is not None else "").split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("LoadState") == "loaded":
            enabled = unit.get("UnitFileState") == "enabled"
            units[unit.get("Id", "")] = {"active": unit.get("ActiveState"), "enabled": enabled}
    return {name: units.get(unit) for name, unit in SERVICES.items()}


def fabric_manager_version(host: Host) -> Optional[str]:
    """The fabric manager's own version, which must be the driver's; None where it is not installed."""
    answer = host.run("nv-fabricmanager", "--version")
    match = re.search(r"version is\s*:\s*([0-9.]+)", answer.text) if answer is not None else None
    return match.group(1) if match else None


def parse_cdi(text: str) -> Optional[dict[str, Any]]:
    """What matters in a specification, JSON or YAML: {kind, version, devices, driver}; None for another vendor's.

    A host need not have a YAML parser, so the three keys are picked out of the block style that nvidia-ctk writes.
    """
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
            kind, version = str(document["kind"]), document.get("cdiVersion")
            names = [str(device["name"]) for device in document["devices"]]
        except (ValueError, KeyError, TypeError):
            return None
    else:
        top = dict(re.findall(r"^(kind|cdiVersion):[ \t]*[\"']?([^\"'\s#]+)", text, re.MULTILINE))
        kind, version, names = top.get("kind", ""), top.get("cdiVersion"), _yaml_devices(text)
    if not kind.startswith(CDI_KIND):
        return None
    drivers = sorted(set(DRIVER_LIBRARY.findall(text)))
    return {"kind": kind, "version": version, "devices": names, "driver": drivers[0] if len(drivers) == 1 else None}


def _yaml_devices(text: str) -> list[str]:
    """The names in the list under `devices:`, at whatever depth it is written."""
    block = re.search(r"^devices:[^\n]*\n((?:(?:[ \t-][^\n]*)?\n)*)", text + "\n", re.MULTILINE)
    item = re.search(r"^( *)- ", block.group(1), re.MULTILINE) if block else None
    if block is None or item is None:
        return []
    dent = item.group(1)
    return re.findall(rf"^{dent}(?:- |  )name:[ \t]*[\"']?([^\"'\s#]+)", block.group(1), re.MULTILINE)


def _specs(host: Host, folder: str, loaded: Optional[str]) -> list[dict[str, Any]]:
    """The specifications of NVIDIA in a folder; stale: made for another driver than the loaded one."""
    rows = []
    for name in host.names(folder):
        text = host.read(f"{folder}/{name}", CDI_BYTES) if name.endswith((".yaml", ".yml", ".json")) else None
        spec = parse_cdi(text) if text else None
        if spec is not None:
            driver = spec["driver"]
            stale = None if driver is None or loaded is None else driver != loaded
            rows.append({"path": f"{folder}/{name}", **spec, "stale": stale})
    return rows
