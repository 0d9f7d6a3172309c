"""Filters of the role dcgm: its judgement of its settings. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

FIELD = re.compile(r"DCGM_(FI|EXP)_[A-Z0-9_]+")
VERSIONS = ("dcgm_package_version", "dcgm_exporter_package_version")


def dcgm_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the role's variables, as lines "VARIABLE: why - fix"; preflight asks this too.

    `settings` maps variables of the role to their values; those left out are not judged.
    """
    method = settings["dcgm_method"]
    problems = []
    if method == "container" and not settings.get("dcgm_exporter_image"):
        problems.append(
            "dcgm_exporter_image: the method container needs an image - add dcgm_exporter to redoubt_images, or set"
            " dcgm_method to package or none"
        )
    if method == "package":
        problems += [
            f"{name}: no version is pinned - write the one that `apt-cache policy` shows"
            for name in VERSIONS
            if not settings.get(name)
        ]
    interval = settings.get("dcgm_interval", 1)
    if not 1 <= interval <= 60:
        problems.append(f"dcgm_interval: {interval} s is no useful interval - write 1 to 60")
    for index, counter in enumerate(settings.get("dcgm_extra_counters") or []):
        where = f"dcgm_extra_counters[{index}]"
        if not FIELD.fullmatch(counter["field"]):
            problems.append(f"{where}: {counter['field']!r} is no field of DCGM - write such as DCGM_FI_DEV_FAN_SPEED")
        if re.search(r'[,"\n]', counter["help"]):
            problems.append(f"{where}: its help breaks the list - leave out commas, quotation marks and line breaks")
    return problems


class FilterModule:
    """Filters for templates and tasks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function of each filter."""
        return {"dcgm_problems": dcgm_problems}
