"""What a GPU host looks like, read from lab/gpus/NAME.yml and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from lab.errors import LabError

FOLDER = Path(__file__).resolve().parent / "gpus"

ADDRESS = {"type": "string", "pattern": r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$"}
DEVICE = {"type": "string", "pattern": r"^[0-9a-f]{4}:[0-9a-f]{4}$"}
TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}


def _record(properties: Mapping[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


PLACE = _record({"address": ADDRESS, "device": DEVICE})
MIG_DEVICE = _record({"profile": TEXT, "uuid": {"type": "string", "pattern": "^MIG-"}, "gi": COUNT, "ci": COUNT})
GPU = _record(
    {
        "address": ADDRESS,
        "device": DEVICE,
        # The subsystem's id, where it tells products of one device id apart.
        "subsystem": DEVICE,
        "product": TEXT,
        "uuid": {"type": "string", "pattern": "^GPU-"},
        "serial": TEXT,
        "memory_mib": {"type": "integer", "minimum": 1},
        "numa_node": {"type": "integer", "minimum": -1},
        "ecc": {"type": "boolean"},
        "mig_capable": {"type": "boolean"},
        "mig_mode": {"enum": ["enabled", "disabled"]},
        "mig_devices": _list(MIG_DEVICE),
    },
    optional=("subsystem",),
)
SCHEMA = _record(
    {
        "name": TEXT,
        "gpus": _list(GPU),
        "nvswitches": _list(PLACE),
        "infiniband": _list(PLACE),
        "secure_boot": {"type": ["boolean", "null"]},
        "nouveau": {"type": "boolean"},
        "fabric": {"anyOf": [{"type": "null"}, _record({"state": TEXT, "status": TEXT})]},
    }
)


def names() -> list[str]:
    """The descriptions that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load(name: str) -> dict[str, Any]:
    """The description lab/gpus/NAME.yml. Raises LabError where there is none or it is wrong."""
    path = FOLDER / f"{name}.yml"
    if not path.is_file():
        raise LabError(f"there is no hardware description {name!r}; there are: {', '.join(names())}")
    description = yaml.safe_load(path.read_text())
    found = problems(description)
    if isinstance(description, dict) and description.get("name") not in (None, name):
        found.append(f"name: is {description['name']!r}, the file's is {name!r}")
    if found:
        raise LabError(f"lab/gpus/{name}.yml is no hardware description:\n  " + "\n  ".join(found))
    return dict(description)


def problems(description: Any) -> list[str]:
    """What is wrong with a description, one line each, beginning with where; empty when it is right."""
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(description)
    found = sorted(f"{_where(error)}: {error.message}" for error in errors)
    return found or _contradictions(description)


def _where(error: jsonschema.ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return path.lstrip(".") or "description"


def _contradictions(description: Mapping[str, Any]) -> list[str]:
    found = []
    seen: dict[str, str] = {}
    for kind in ("gpus", "nvswitches", "infiniband"):
        for number, device in enumerate(description[kind]):
            where = f"{kind}[{number}]"
            if device["address"] in seen:
                found.append(f"{where}.address: {device['address']} is {seen[device['address']]}'s already")
            seen.setdefault(device["address"], where)
            if kind == "gpus" and device["mig_mode"] == "enabled" and not device["mig_capable"]:
                found.append(f"{where}.mig_mode: enabled, but mig_capable is false")
            if kind == "gpus" and device["mig_devices"] and device["mig_mode"] == "disabled":
                found.append(f"{where}.mig_devices: not empty, but mig_mode is disabled")
    if (description["nvswitches"] or description["infiniband"]) and description["fabric"] is None:
        found.append("fabric: null, but there are switches to manage; give the state that they reach")
    return found
