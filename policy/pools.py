# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Asking the gateway's servers whether they answer: what may be wanted, and what is asked. Pure functions."""

from __future__ import annotations

from typing import Any

from policy.balance import groups
from policy.routes import GENERATIONS

HEALTH = "/health"
#: Least and most of each number.
BOUNDS = {
    "gateway_health_seconds": (5, 300),
    "gateway_health_timeout": (1, 60),
    "gateway_health_fails": (1, 100),
    "gateway_health_passes": (1, 100),
}


def health_problems(settings: dict[str, Any]) -> list[str]:
    """What is wrong with the settings of the checks."""
    problems = []
    for variable, (least, most) in BOUNDS.items():
        value = settings.get(variable, least)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            problems.append(f"{variable}: {value!r} must be a whole number without quotes, from {least} to {most}")
    return problems


def gateway_pools(
    models: list[dict[str, Any]], fails: int, passes: int, timeout: int, generation: bool
) -> dict[str, Any]:
    """What the gateway's own checker works by: the groups of servers as the plan has them, and how to ask each."""
    by_name = {model["name"]: model for model in models}
    return {
        "fails": fails,
        "passes": passes,
        "timeout": timeout,
        "models": [
            {
                "pool": group["name"],
                "name": group["model"],
                "path": by_name[group["model"]].get("health_path", HEALTH),
                "generation": _generation(by_name[group["model"]]) if generation else "",
                "servers": group["servers"],
                "drained": group["drained"],
                "backup": group["backup"],
                "weights": group["weights"],
            }
            for group in groups(models)
        ],
    }


def pool_files(models: list[dict[str, Any]], folder: str) -> dict[str, str]:
    """The file with the servers of each group, by the group's name."""
    return {group["name"]: f"{folder}/{group['name']}.conf" for group in groups(models)}


def _generation(model: dict[str, Any]) -> str:
    paths = [route["path"] for route in model["routes"] if "POST" in route["methods"]]
    return next((path for path in GENERATIONS if path in paths), "")
