"""MIG on a host: which GPUs are not divided as wanted, and who uses them."""

from __future__ import annotations

import csv
from collections import Counter
from typing import Any, NamedTuple

ALL = "all"
KIND = "nvidia.com/gpu="


class User(NamedTuple):
    """Who uses GPUs: a container by name, or a process."""

    name: str
    #: Whether it is one of our engines, which the serve playbook brings back.
    engine: bool
    #: GPUs by index; empty stands for all.
    gpus: frozenset[int]


def differing(gpus: list[dict[str, Any]], parts: list[dict[str, Any]]) -> list[int]:
    """Indexes of the GPUs (rows of gpu_facts) that are not as `parts` (mig-parted's list) wants them."""
    found = []
    for part in parts:
        for index in part["devices"]:
            gpu = next((gpu for gpu in gpus if gpu["index"] == index), None)
            have = Counter(device["profile"] for device in gpu["mig_devices"]) if gpu else Counter()
            wanted = Counter(part.get("mig-devices", {}))
            if gpu is None or bool(gpu["mig"]) != part["mig-enabled"] or have != wanted:
                found.append(index)
    return found


def disturbed(gpus: list[dict[str, Any]], parts: list[dict[str, Any]], indexes: list[int]) -> list[int]:
    """The GPUs that must be idle while those of `indexes` become as `parts` wants them.

    Ampere's GPUs are reset when MIG is switched on or off, and mig-parted resets all GPUs of a host at once; from
    Hopper on nothing is reset (NVIDIA MIG user guide, "Enable MIG mode").
    """
    wanted = {index: part["mig-enabled"] for part in parts for index in part["devices"]}
    reset = any(
        gpu["generation"] == "Ampere" and bool(gpu["mig"]) != wanted.get(gpu["index"])
        for gpu in gpus
        if gpu["index"] in indexes
    )
    return sorted(gpu["index"] for gpu in gpus if gpu["index"] is not None) if reset else indexes


def container_users(inspected: list[dict[str, Any]], gpus: list[dict[str, Any]]) -> list[User]:
    """The containers among those that docker inspect tells of that were given GPUs."""
    users = []
    for item in inspected:
        given = _given(item.get("HostConfig") or {})
        if given:
            indexes = [_index(name, gpus) for name in given]
            known = frozenset(index for index in indexes if index is not None)
            engine = "redoubt.engine" in ((item.get("Config") or {}).get("Labels") or {})
            name = item["Name"].lstrip("/")
            users.append(User(name, engine, frozenset() if None in indexes else known))
    return users


def _given(config: dict[str, Any]) -> list[str]:
    """Names of the GPUs that a container was given; ALL where it has all, or nobody can tell which."""
    names: list[str] = []
    for request in config.get("DeviceRequests") or []:
        ids = request.get("DeviceIDs") or []
        capabilities = [word for words in request.get("Capabilities") or [] for word in words]
        if request.get("Driver") == "cdi":
            names += [one[len(KIND) :] for one in ids if one.startswith(KIND)]
        elif request.get("Driver") == "nvidia" or "gpu" in capabilities:
            names += ids or [ALL]
    nodes = [str(device.get("PathOnHost")) for device in config.get("Devices") or []]
    names += [node[len("/dev/nvidia") :] for node in nodes if node[len("/dev/nvidia") :].isdigit()]
    return names or ([ALL] if config.get("Runtime") == "nvidia" else [])


def _index(name: str, gpus: list[dict[str, Any]]) -> int | None:
    """The index of the GPU that a CDI name means: index, UUID, INDEX:NUMBER or a MIG device's UUID; None for others."""
    for gpu in gpus:
        own = {str(gpu["index"]), gpu["uuid"], *(device["uuid"] for device in gpu["mig_devices"])}
        if name in own or name.partition(":")[0] == str(gpu["index"]):
            found: int = gpu["index"]
            return found
    return None


def process_users(text: str, gpus: list[dict[str, Any]]) -> list[User]:
    """The processes in the answer of nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name (CSV without header)."""
    users = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 3 and row[1].isdigit():
            index = _index(row[0], gpus)
            users.append(User(f"process {row[1]} ({row[2]})", False, frozenset(() if index is None else (index,))))
    return users


def using(users: list[User], indexes: list[int]) -> list[User]:
    """Those of the users that use one of these GPUs."""
    return [user for user in users if not user.gpus or user.gpus & set(indexes)]
