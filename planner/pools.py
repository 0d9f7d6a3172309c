"""Which of a gateway's pools an engine stands in, and what the hosts of one model must agree on."""

from __future__ import annotations

from typing import Any

from planner.document import Model
from planner.problems import Problems

SAME = "write the same for each host that serves it"


def place(entry: dict[str, Any], model: Model, host: str, server: str, drained: bool, problems: Problems) -> None:
    """Put a host's engine (`server`, host:port) where it belongs in `entry`, a model of the gateway."""
    if model.balance and entry.setdefault("balance", model.balance) != model.balance:
        why = f"another host wants {entry['balance']}"
        problems.add(f"{model.where}.balance", why, SAME, model.balance, host)
    if model.weight:
        entry.setdefault("weights", {})[server] = model.weight
    kind = "drained" if drained else "servers"
    if model.canary is None:
        _add(entry[kind], server)
        return
    canary = entry.setdefault("canary", {"servers": [], "drained": [], "percent": model.canary})
    if canary["percent"] != model.canary:
        why = f"another host has {canary['percent']}"
        problems.add(f"{model.where}.canary", why, "write the same for each host that is a canary", model.canary, host)
    _add(canary[kind], server)


def _add(servers: list[str], server: str) -> None:
    if server not in servers:
        servers.append(server)


def check(models: dict[str, dict[str, Any]], problems: Problems) -> None:
    """A canary is one beside others: they take its requests when it is gone."""
    for name, entry in models.items():
        if "canary" in entry and not entry["servers"] and not entry["drained"]:
            why = f"all hosts that serve {name} are canaries"
            problems.add("redoubt_models", why, "leave `canary` out on the hosts with the proven revision")
