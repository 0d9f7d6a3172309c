# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Which host may be drained: the judgements of the drain and return playbooks. Pure functions."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner.entries import endpoint
from planner.table import since

Document = dict[str, Any]


def drain_problems(host: str, inference: list[str], gateways: list[str], reached: list[str]) -> list[str]:
    """Why this host cannot be drained or returned now, one line each: it must serve, and all that must know be there.

    `reached` are the hosts of the run that answer.
    """
    if host not in inference:
        near = get_close_matches(host, inference, 1)
        fix = f"did you mean {near[0]}?" if near else f"choose one of: {', '.join(inference) or 'none is listed'}"
        told = f"drain_host = {host!r}: no host of this name serves models" if host else "drain_host is not set"
        return [f"{told}. Fix: -e drain_host=NAME; {fix}"]
    away = [name for name in [*gateways, host] if name not in reached]
    return [
        f"{name} does not answer or is outside --limit, but the pool changes on every gateway at once."
        f" Fix: bring {name} back, or take it out of the inventory; run without --limit"
        for name in dict.fromkeys(away)
    ]


def drain_endpoints(engines: list[Document]) -> list[str]:
    """Where gateways reach these engines of a plan, each as host:port."""
    return [endpoint(engine["address"], engine["port"]) for engine in engines]


def drain_rest(models: list[Document], engines: list[Document]) -> list[Document]:
    """Checks for the doctor: does each endpoint answer that would be left to the models of these engines?

    `models` are those of the gateway's plan, `engines` those of the host that is to be drained.
    """
    return drain_checks(models, engines, set(drain_endpoints(engines)))


def drain_checks(models: list[Document], engines: list[Document], leaving: set[str]) -> list[Document]:
    """The same without those that leave (host:port)."""
    health = {engine["name"]: engine["health"].get("path", "/health") for engine in engines}
    return [
        {"id": f"{model['name']} {server}", "kind": "answers", "url": f"http://{server}{health[model['name']]}"}
        for model in models
        if model["name"] in health
        for server in model["servers"]
        if server not in leaving
    ]


def drain_refusals(answers: list[Document], engines: list[Document], host: str) -> list[str]:
    """One line for each model that would be left without an endpoint that answers. `answers`: to `drain_rest`."""
    lines = []
    for engine in engines:
        rest = [answer for answer in answers if answer["id"].rpartition(" ")[0] == engine["name"]]
        if any(answer["ok"] for answer in rest):
            continue
        why = "; ".join(answer["detail"] for answer in rest) or "no other host serves it"
        lines.append(
            f"{engine['name']} would be left without an endpoint if {host} were drained: {why}. Fix: serve it on"
            " another host first, or let its clients get 502 meanwhile with -e '{\"drain_allow_last_endpoint\": true}'"
        )
    return lines


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Names as used in templates."""
        return {
            "drain_endpoints": drain_endpoints,
            "drain_problems": drain_problems,
            "drain_refusals": drain_refusals,
            "drain_rest": drain_rest,
            "drain_since": since,
        }
