"""What the host must be able to give: a supported system, enough disk, enough cores and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.document import Document, Facts, Image, Lock, Model
from planner.problems import Problems

STATE_ROOT = "/var/lib/redoubt"
_ENTERPRISE = ("AlmaLinux", "RedHat", "Rocky")
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "Debian": ("12", "13"),
    "Ubuntu": ("22.04", "24.04", "26.04"),
    **dict.fromkeys(_ENTERPRISE, ("9", "10")),
}
ARCHITECTURES = ("x86_64", "aarch64")
_UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def check(document: Document, disk: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """Note an unsupported system and too little disk; what is not known is not judged."""
    facts = document.facts
    _check_system(facts, document.host, problems)
    _check_disk(document, disk, problems)


def _check_system(facts: Facts, host: str, problems: Problems) -> None:
    if facts.system is not None and facts.version is not None:
        versions = SYSTEMS.get(facts.system, ())
        # Ubuntu is named by year and month, the others by their first number.
        version = facts.version if facts.system == "Ubuntu" else facts.version.partition(".")[0]
        if version not in versions:
            listed = "; ".join(f"{name} {', '.join(numbers)}" for name, numbers in sorted(SYSTEMS.items()))
            value = f"{facts.system} {facts.version}"
            where = f"operating system of {host}"
            problems.add(where, "it is not supported", f"install one of these: {listed}", value)
    if facts.architecture is not None and facts.architecture not in ARCHITECTURES:
        where = f"architecture of {host}"
        problems.add(where, "it is not supported", f"use {' or '.join(ARCHITECTURES)}", facts.architecture)


def disk_needs(
    document: Document, images: Sequence[Image], weights: Sequence[Lock], models_root: str
) -> list[dict[str, Any]]:
    """Return the bytes still to be written per path: what the host already holds is not counted again."""
    facts = document.facts
    missing = [image for image in images if not {image.digest, image.config_digest} & facts.images]
    source = document.sources.get("images", "")
    # Unpacked layers take a little more than their archive; an archive from elsewhere lies on the host for a while.
    unpacked = sum((image.size * 11 + 9) // 10 for image in missing)
    direct = source == "upstream" or source.startswith(("file://", "registry")) or source == "depot"
    fetched = 0 if direct else max((image.size for image in missing if image.archive), default=0)
    model_bytes = sum(
        lock.total_size for lock in weights if f"{models_root}/{lock.name}/{lock.revision[:12]}" not in facts.weights
    )
    needs = [(document.docker_root, unpacked), (models_root.rpartition("/")[0], model_bytes)]
    if fetched:
        needs.append((STATE_ROOT, fetched))
    return [{"path": path, "needed_bytes": needed} for path, needed in needs]


def _check_disk(document: Document, disk: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """Paths on one file system share its free space."""
    needed: dict[str, int] = {}
    paths: dict[str, list[str]] = {}
    free: dict[str, int] = {}
    for need in disk:
        known = document.facts.disks.get(need["path"])
        if known is None or not need["needed_bytes"]:
            continue
        filesystem, free_bytes = known
        needed[filesystem] = needed.get(filesystem, 0) + need["needed_bytes"]
        paths.setdefault(filesystem, []).append(need["path"])
        free[filesystem] = free_bytes
    for filesystem, wanted in needed.items():
        lacking = wanted + document.disk_reserve - free[filesystem]
        if lacking > 0:
            listed = " and ".join(paths[filesystem])
            why = (
                f"images and weights need {size(wanted)} in {listed}, and {size(document.disk_reserve)} must stay "
                f"free, but the file system has {size(free[filesystem])} free"
            )
            fix = f"free {size(lacking)}, mount a larger disk, or move models to other hosts"
            problems.add(f"disk of {document.host} ({filesystem})", why, fix)


def check_resources(model: Model, facts: Facts, lock: Lock, models_root: str, problems: Problems, *, cpu: bool) -> None:
    """Note limits that the host cannot give, also the memory that a model without a GPU needs.

    Where the model is on the host already, its tensors count, as their headers say; else all of its files.
    """
    where = f"{model.where}.resources"
    limits = model.resources
    if limits.cpus is not None and facts.cpus is not None and limits.cpus > facts.cpus:
        why = f"the host has {facts.cpus} cores, and Docker refuses more"
        problems.add(f"{where}.cpus", why, f"write at most {facts.cpus}", limits.cpus)
    memory = parse_size(limits.memory) if limits.memory else None
    if memory is not None and facts.memory is not None and memory > facts.memory:
        why = f"the host has {size(facts.memory)} of memory"
        problems.add(f"{where}.memory", why, "lower it, or leave it out for no limit", limits.memory)
    if not cpu:
        return
    weights = facts.tensor_bytes.get(f"{models_root}/{lock.name}/{lock.revision[:12]}", lock.total_size)
    needed = weights + (limits.kv_cache_gib or 1) * 2**30
    available = memory if memory is not None else facts.memory
    if available is not None and needed > available:
        why = f"weights and KV cache need {size(needed)}, but there is only {size(available)}"
        problems.add(f"{where}.memory", why, "raise it, lower kv_cache_gib, or take a smaller model", limits.memory)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 8g (already checked by fields.SIZE)."""
    return int(text[:-1]) * _UNITS[text[-1]]


def size(count: int) -> str:
    """Return bytes as a short text."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
