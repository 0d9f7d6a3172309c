"""CDI specifications against the GPUs that the driver shows: is there one, is it fresh, does it name what is wanted."""

from __future__ import annotations

from typing import Any

#: What nvidia-ctk names besides single devices.
ALL = "all"


def device_names(gpus: list[dict[str, Any]]) -> dict[str, str]:
    """CDI name -> UUID of every device that a container can be given, from gpu_facts' rows.

    A whole GPU is named by index and UUID, a MIG device by INDEX:NUMBER and its own UUID. A GPU in MIG mode is no
    device of its own.
    """
    names = {}
    for gpu in gpus:
        if not gpu["visible"] or gpu["uuid"] is None:
            continue
        index = str(gpu["index"])
        if gpu["mig"]:
            for number, device in enumerate(gpu["mig_devices"]):
                names.update({f"{index}:{number}": device["uuid"], device["uuid"]: device["uuid"]})
        else:
            names.update({index: gpu["uuid"], gpu["uuid"]: gpu["uuid"]})
    return names


def faults(facts: dict[str, Any], planned: list[str]) -> list[str]:
    """What is wrong with the specifications for GPUs, each with what to do where a refresh would not help.

    facts: the document of gpu_facts; planned: CDI names (without nvidia.com/gpu=) that containers are to be given.
    """
    present = device_names(facts["gpus"])
    # A GPU in MIG mode may be named or not: the toolkit's versions differ.
    allowed = {*present, ALL, *(name for gpu in facts["gpus"] for name in (str(gpu["index"]), gpu["uuid"]))}
    specs = [spec for spec in facts["toolkit"]["cdi"] if spec["kind"] == "nvidia.com/gpu"]
    found = []
    if not specs:
        found.append("there is no CDI specification for nvidia.com/gpu in /etc/cdi and /run/cdi")
    listed = {name for spec in specs for name in spec["devices"]}
    for spec in specs:
        by_hand = spec["path"].startswith("/etc/cdi/")
        remedy = ": it was made by hand and nothing renews it, so remove it" if by_hand else ""
        gone = sorted(set(spec["devices"]) - allowed)
        if spec["stale"]:
            found.append(f"{spec['path']} is for driver {spec['driver']}, not the loaded one{remedy}")
        elif gone and present:
            found.append(f"{spec['path']} names devices that are not there: {', '.join(gone)}{remedy}")
    lacking = sorted(set(present) - listed)
    if specs and lacking:
        found.append(f"no CDI specification names {', '.join(lacking)}")
    unknown = [name for name in planned if name not in present and name != ALL]
    if unknown:
        seen = ", ".join(sorted(name for name in present if not name.startswith(("GPU-", "MIG-")))) or "none"
        found.append(f"planned, but no device of this host: {', '.join(unknown)} (there are: {seen})")
    return found
