"""`nvidia-mig-parted`: apply, assert and export of MIG configurations.

`assert` exits 0 where the GPUs are as the configuration says and 1 where they are not. As NVIDIA's, it also exits 1
where the configuration says nothing of a GPU; `apply` lets such a GPU be.
"""

from __future__ import annotations

import argparse
import re
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from . import views
from .host import Gpu, Host

PROFILE = re.compile(r"(\d+)g\.(\d+)gb(?:\+\S+)?")
SLICES = 7
#: The first GPU instance of a profile with so many slices (the real driver's choice is more involved).
FIRST_INSTANCE = {7: 0, 4: 1, 3: 1, 2: 3, 1: 7}


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="nvidia-mig-parted", description="stub of the Redoubt lab, not NVIDIA's")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("apply", "assert"):
        one = verbs.add_parser(verb)
        one.add_argument("-f", "--config-file", required=True)
        one.add_argument("-c", "--selected-config", required=True)
        one.add_argument("-m", "--mode-only", action="store_true")
    verbs.add_parser("export").add_argument("-o", "--output-format", choices=("yaml", "json"), default="yaml")
    options = parser.parse_args(arguments)
    host = host or Host()
    if host.driver() is None or host.driver() != host.component("nvml"):
        print("stub nvidia-mig-parted: error initializing NVML", file=sys.stderr)
        return 1
    if options.verb == "export":
        document = {"version": "v1", "mig-configs": {"current": exported(host.gpus())}}
        print(yaml.safe_dump(document, sort_keys=False), end="")
        return 0
    try:
        wanted = read(Path(options.config_file).read_text(encoding="utf-8"), options.selected_config, host.gpus())
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"stub nvidia-mig-parted: {error}", file=sys.stderr)
        return 1
    if options.verb == "assert":
        named = [gpu for gpu in host.gpus() if gpu.uuid in wanted]
        same = all(matches(gpu, wanted[gpu.uuid], options.mode_only) for gpu in named)
        same = same and (options.mode_only or len(named) == len(host.gpus()))
        print("Selected MIG configuration currently applied" if same else "Assertion failure: not currently applied")
        return 0 if same else 1
    entries = {key: entry(key, one, options.mode_only) for key, one in wanted.items()}
    host.update(lambda state: state["mig"].update(entries))
    views.refresh(host)
    print("MIG configuration applied successfully")
    return 0


def read(text: str, name: str, gpus: list[Gpu]) -> dict[str, dict[str, Any]]:
    """What the configuration wants, by GPU UUID: `mig-enabled` and `mig-devices`.

    Raises ValueError where the configuration is not there or cannot be.
    """
    document = yaml.safe_load(text)
    if not isinstance(document, dict) or document.get("version") != "v1":
        raise ValueError("the configuration's version is not v1")
    if name not in document.get("mig-configs", {}):
        raise ValueError(f"selected mig-config not present: {name}")
    found: dict[str, dict[str, Any]] = {}
    for part in document["mig-configs"][name]:
        devices = part["devices"]
        for gpu in gpus:
            if devices != "all" and gpu.index not in devices:
                continue
            if part["mig-enabled"] and not gpu.mig_capable:
                raise ValueError(f"cannot enable MIG on GPU {gpu.index}: not MIG-capable")
            profiles = part.get("mig-devices") or {}
            if not fits(profiles, gpu.memory_mib):
                raise ValueError(f"mig-devices {profiles} do not fit on GPU {gpu.index} ({gpu.product})")
            found[gpu.uuid] = {"mig-enabled": part["mig-enabled"], "mig-devices": dict(profiles)}
    return found


def fits(profiles: dict[str, int], memory_mib: int) -> bool:
    """Whether these profiles (name: count) fit: at most 7 slices, and no more memory than there is.

    The real placement rules are stricter.
    """
    slices = memory = 0
    for name, count in profiles.items():
        found = PROFILE.fullmatch(name)
        if found is None:
            return False
        slices += int(found[1]) * count
        memory += int(found[2]) * count
    return slices <= SLICES and memory * 1000 <= memory_mib * 1.05


def entry(gpu_uuid: str, wanted: dict[str, Any], mode_only: bool = False) -> dict[str, Any]:
    """The state of one GPU with this configuration; the same configuration gives the same UUIDs."""
    taken: set[int] = set()
    devices = []
    for profile, count in {} if mode_only else wanted["mig-devices"].items():
        for _ in range(count):
            instance = FIRST_INSTANCE[int(profile.partition("g")[0])]
            while instance in taken:
                instance += 1
            taken.add(instance)
            name = uuid.uuid5(uuid.NAMESPACE_OID, f"{gpu_uuid}/{profile}/{instance}")
            devices.append({"profile": profile, "uuid": f"MIG-{name}", "gi": instance, "ci": 0})
    return {"mode": "enabled" if wanted["mig-enabled"] else "disabled", "devices": devices}


def matches(gpu: Gpu, wanted: dict[str, Any], mode_only: bool = False) -> bool:
    """Whether a GPU is as the configuration wants it."""
    have = Counter(device["profile"] for device in gpu.mig_devices)
    same_mode = gpu.mig_enabled == wanted["mig-enabled"]
    return same_mode and (mode_only or have == Counter(wanted["mig-devices"]))


def exported(gpus: list[Gpu]) -> list[dict[str, Any]]:
    """The configuration as it is, one part for each GPU."""
    return [
        {
            "devices": [gpu.index],
            "mig-enabled": gpu.mig_enabled,
            "mig-devices": dict(Counter(device["profile"] for device in gpu.mig_devices)),
        }
        for gpu in gpus
    ]
