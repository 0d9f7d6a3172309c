"""CUDA toolkits side by side: packages and folders by version.

Names of packages and folders: NVIDIA CUDA installation guide for Linux, "Meta packages" (cuda-toolkit-13-0 installs
below /usr/local/cuda-13.0). Drivers: CUDA release notes, "CUDA minor version compatibility".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from planner.container_toolkit import number
from planner.problems import Problems

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?")
# Oldest driver branch that runs programs of this major version.
_DRIVERS = {11: 450, 12: 525, 13: 580}


def release(version: str) -> str:
    """Return the part of a version that names packages and folders: 13.0 of 13.0.2."""
    match = _VERSION.fullmatch(version)
    return f"{match[1]}.{match[2]}" if match else ""


def packages(versions: Sequence[str]) -> list[str]:
    """Return the packages as package_set takes them; a version of three numbers is exact."""
    names = [(f"cuda-toolkit-{release(version).replace('.', '-')}", version) for version in versions]
    return [f"{name}={version}-*" if version.count(".") == 2 else name for name, version in names]


def folder(version: str) -> str:
    """Return where a toolkit lies."""
    return f"/usr/local/cuda-{release(version)}"


def check(versions: Sequence[str], default: str, facts: Mapping[str, Any], problems: Problems) -> None:
    """Note versions that cannot be told apart or that the loaded driver (facts: redoubt_gpu) does not run."""
    where = "cuda_toolkit_versions"
    releases = [release(version) for version in versions]
    for version in versions:
        if not release(version):
            problems.add(where, "it is no version", "write such as 13.0 or 13.0.2", version)
    twice = sorted({name for name in releases if name and releases.count(name) > 1})
    if twice:
        why = f"{', '.join(twice)} is there twice, and one folder holds one version"
        problems.add(where, why, "keep one of them", list(versions))
    if default and release(default) not in releases:
        problems.add("cuda_toolkit_default", f"it is none of {where}", f"write one of {', '.join(releases)}", default)
    loaded = number(facts["driver"]["loaded"] or "")
    for version in versions:
        oldest = _DRIVERS.get(number(version)[0]) if number(version) else None
        if loaded and oldest and loaded[0] < oldest:
            why = f"its programs need driver {oldest} or newer, loaded is {facts['driver']['loaded']}"
            problems.add(f"{where} {version}", why, "install a newer driver or an older toolkit", version)
