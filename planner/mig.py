"""MIG: what an operator may ask of a GPU, and what comes of it: separate devices, and mig-parted's configuration.

A layout is the operator's list, each GPU named once:

    - gpus: all                        # or a list of places on the PCI bus, from 0
      devices: {1g.10gb: 7}            # profile: number; {} leaves the GPU whole, with MIG off

GPUs that no entry names are whole. Devices are named as CDI names them: "3" is a whole GPU, "3:0" the first MIG device
of GPU 3. GPUs that another driver than NVIDIA's holds (vfio-pci) are not counted, as NVIDIA's tools do not count them.

Profiles and their numbers: NVIDIA MIG user guide of R580, "Supported MIG profiles". Device ids, and the profiles of
H100 NVL, H20 and GH200: NVIDIA/mig-parted v0.15, deployments/systemd/config-default.yaml. Variants of a profile
(1g.10gb+me, 1g.24gb+gfx, 1g.24gb-me) take the slices of the profile they are named after; how many of them fit is left
to the driver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from planner.problems import Problems

_PROFILE = re.compile(r"(?P<base>(?P<compute>[1-7])g\.[1-9]\d*gb)(?:[+-][a-z.]+)?")


class Profile(NamedTuple):
    """What one instance takes of its GPU (compute slices, memory slices), and how many of them there can be."""

    compute: int
    memory: int
    most: int


class Family(NamedTuple):
    """GPUs that are cut alike: slices in all, and profiles by name."""

    compute: int
    memory: int
    profiles: Mapping[str, Profile]


class Entry(NamedTuple):
    """One entry of a layout: GPUs by place, None = all; profile -> number."""

    gpus: tuple[int, ...] | None
    devices: Mapping[str, int]


def _seven(eighth: int, quarter: int, half: int, full: int) -> Family:
    """Seven compute and eight memory slices; the sizes in GB as the profiles' names write them."""
    return Family(
        7,
        8,
        {
            f"1g.{eighth}gb": Profile(1, 1, 7),
            f"1g.{quarter}gb": Profile(1, 2, 4),
            f"2g.{quarter}gb": Profile(2, 2, 3),
            f"3g.{half}gb": Profile(3, 4, 2),
            f"4g.{half}gb": Profile(4, 4, 1),
            f"7g.{full}gb": Profile(7, 8, 1),
        },
    )


def _four(quarter: int, half: int, full: int) -> Family:
    return Family(
        4,
        4,
        {
            f"1g.{quarter}gb": Profile(1, 1, 4),
            f"2g.{half}gb": Profile(2, 2, 2),
            f"4g.{full}gb": Profile(4, 4, 1),
        },
    )


_A30 = _four(6, 12, 24)
_RTX_PRO_6000 = _four(24, 48, 96)
_40_GB = _seven(5, 10, 20, 40)
_80_GB = _seven(10, 20, 40, 80)
_94_GB = _seven(12, 24, 47, 94)
_96_GB = _seven(12, 24, 48, 96)
_H200 = _seven(18, 35, 71, 141)
_B200 = _seven(23, 45, 90, 180)
FAMILIES: Mapping[str, Family] = {
    "20b7": _A30,
    **dict.fromkeys(("20b0", "20b1", "20f1", "20f6"), _40_GB),
    **dict.fromkeys(("20b2", "20b5", "20f3", "20f5", "2322", "2324", "2330", "2331"), _80_GB),
    **dict.fromkeys(("2321", "233a"), _94_GB),
    **dict.fromkeys(("2329", "2342"), _96_GB),
    **dict.fromkeys(("2335", "233b"), _H200),
    "2901": _B200,
    **dict.fromkeys(("2bb1", "2bb4", "2bb5"), _RTX_PRO_6000),
}


def parse(raw: object, problems: Problems) -> tuple[Entry, ...]:
    """Read a layout; every mistake is noted, and an entry with one is left out."""
    where = "nvidia_mig_layout"
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple):
        problems.add(where, "it is not a list", "write a list of {gpus, devices}", raw)
        return ()
    found = [_entry(f"{where}[{index}]", entry, problems) for index, entry in enumerate(raw)]
    entries = tuple(entry for entry in found if entry is not None)
    taken: set[int] = set()
    for entry in entries:
        twice = sorted(taken & set(entry.gpus or ()))
        taken |= set(entry.gpus or ())
        if twice or (entry.gpus is None and len(entries) > 1):
            which = ", ".join(str(gpu) for gpu in twice) or "all"
            problems.add(where, f"GPU {which} is named twice", "name each GPU in one entry", which)
            return ()
    return entries


def _entry(where: str, raw: object, problems: Problems) -> Entry | None:
    if not isinstance(raw, Mapping) or set(raw) != {"gpus", "devices"}:
        problems.add(where, "it is not {gpus, devices}", "write such as {gpus: [0], devices: {1g.10gb: 7}}", raw)
        return None
    gpus, devices = raw["gpus"], raw["devices"]
    listed = isinstance(gpus, list | tuple) and gpus and all(_whole(gpu, 0) for gpu in gpus)
    if gpus != "all" and not (listed and len(set(gpus)) == len(gpus)):
        why = "it is neither `all` nor a list of GPUs by their place on the bus"
        problems.add(f"{where}.gpus", why, "write all, or numbers from 0 such as [0, 1]", gpus)
        return None
    if not isinstance(devices, Mapping) or not all(
        isinstance(name, str) and _PROFILE.fullmatch(name) and _whole(number, 1) for name, number in devices.items()
    ):
        why = "it is not profile: number"
        problems.add(f"{where}.devices", why, "write such as {3g.40gb: 1, 1g.10gb: 4}, or {} for MIG off", devices)
        return None
    return Entry(None if gpus == "all" else tuple(gpus), dict(devices))


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def wanted(layout: Sequence[Entry], count: int) -> dict[int, Mapping[str, int]]:
    """Return GPU -> profiles, for the GPUs that the layout names on a host with `count` GPUs."""
    return {gpu: entry.devices for entry in layout for gpu in (entry.gpus or range(count))}


def names(layout: Sequence[Entry], known: int | tuple[str, ...]) -> tuple[str, ...]:
    """Return the devices that models can have: whole GPUs as `known` names them, MIG devices as GPU:NUMBER."""
    whole = tuple(str(gpu) for gpu in range(known)) if isinstance(known, int) else known
    cut = {gpu: sum(devices.values()) for gpu, devices in wanted(layout, len(whole)).items() if devices}
    return tuple(
        name
        for gpu, name_of_gpu in enumerate(whole)
        for name in ([f"{gpu}:{number}" for number in range(cut[gpu])] if gpu in cut else [name_of_gpu])
    )


def check(layout: Sequence[Entry], gpus: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """Note what the host's GPUs (rows of gpu_facts that can be used, in bus order) cannot do."""
    for gpu, devices in sorted(wanted(layout, len(gpus)).items()):
        place = f"nvidia_mig_layout, GPU {gpu}"
        if gpu >= len(gpus):
            problems.add(place, f"the host has {len(gpus)} GPUs", f"name GPUs from 0 to {len(gpus) - 1}")
            continue
        if devices:
            _check_one(place, gpus[gpu], devices, problems)


def _check_one(place: str, gpu: Mapping[str, Any], devices: Mapping[str, int], problems: Problems) -> None:
    product = gpu["product"] or gpu["device"]
    if gpu["mig_capable"] is False or (gpu["visible"] and gpu["mig"] is None):
        problems.add(place, f"{product} cannot be divided by MIG", "take the GPU out of the layout", dict(devices))
        return
    family = FAMILIES.get(str(gpu["device"]).rpartition(":")[2])
    if family is None:
        # A product that is newer than the table: its driver judges.
        return
    compute = memory = 0
    for name, number in devices.items():
        match = _PROFILE.fullmatch(name)
        profile = family.profiles.get(match["base"]) if match else None
        if profile is None:
            known = ", ".join(family.profiles)
            problems.add(place, f"{product} has no profile {name}", f"choose of {known}", dict(devices))
            return
        if number > profile.most:
            why = f"{product} gives at most {profile.most} of {name}"
            problems.add(place, why, f"write at most {profile.most}", dict(devices))
            return
        compute += profile.compute * number
        memory += profile.memory * number
    if compute > family.compute or memory > family.memory:
        why = (
            f"it takes {compute} of {family.compute} compute slices and {memory} of {family.memory} memory slices "
            f"of {product}"
        )
        problems.add(place, why, "take fewer or smaller devices", dict(devices))


def parts(layout: Sequence[Entry], count: int) -> list[dict[str, Any]]:
    """Return the list for mig-parted, an entry for each of the GPUs: its `assert` fails where it does not name one."""
    named = wanted(layout, count)
    return [
        {"devices": [gpu], "mig-enabled": True, "mig-devices": dict(named[gpu])}
        if named.get(gpu)
        else {"devices": [gpu], "mig-enabled": False}
        for gpu in range(count)
    ]
