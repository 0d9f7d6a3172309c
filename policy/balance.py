# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""How a model's requests are spread over its servers: what may be wanted, and in which groups they stand.

Pure functions. A group is an upstream of Nginx: one for each model, and one more for its canary.
"""

from __future__ import annotations

from typing import Any

LEAST_CONN, CONVERSATION = "least_conn", "conversation"
MOST = 100
CANARY = {"servers", "drained", "percent"}


def balance_problems(where: str, model: dict[str, Any]) -> list[str]:
    """What is wrong with a model's `balance`, `weights` and `canary`, but for the form of its servers."""
    problems = []
    wanted = model.get("balance", LEAST_CONN)
    if wanted not in (LEAST_CONN, CONVERSATION):
        problems.append(
            f"{where}: balance: {wanted!r} is not known - {LEAST_CONN} spreads evenly, {CONVERSATION} keeps the turns"
            " of a conversation on one server"
        )
    weights = model.get("weights", {})
    known = {*map(str, [*(model.get("servers") or []), *(model.get("drained") or []), *canary_servers(model)])}
    if not isinstance(weights, dict):
        problems.append(f"{where}: weights: {weights!r} - write {{host:port: 2}} for a server that takes twice as much")
        weights = {}
    for server, weight in weights.items():
        if server not in known:
            problems.append(f"{where}: weights: {server} is none of its servers - write it as it stands there")
        if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= MOST:
            problems.append(f"{where}: weights: {server}: {weight!r} must be a whole number from 1 to {MOST}")
    canary = model.get("canary")
    return problems + (_canary_problems(f"{where}: canary", canary, model) if canary is not None else [])


def _canary_problems(where: str, canary: Any, model: dict[str, Any]) -> list[str]:
    if not isinstance(canary, dict) or set(canary) - CANARY:
        return [f"{where}: {canary!r} - write {{servers: [host:port], percent: 10}}"]
    problems = []
    percent = canary.get("percent")
    if not isinstance(percent, int) or isinstance(percent, bool) or not 0 <= percent <= 100:
        problems.append(f"{where}: percent: {percent!r} must be a whole number without quotes, from 0 to 100")
    own = canary_servers(model)
    if not own:
        problems.append(f"{where}: no servers - give those of the new revision, or leave canary out")
    both = sorted({*map(str, own)} & {*map(str, [*(model.get("servers") or []), *(model.get("drained") or [])])})
    if both:
        problems.append(f"{where}: {', '.join(both)} serves the other revision too - name it in one of the two lists")
    return problems


def canary_servers(model: dict[str, Any]) -> list[Any]:
    """All servers of a model's canary."""
    canary = model.get("canary")
    return [*(canary.get("servers") or []), *(canary.get("drained") or [])] if isinstance(canary, dict) else []


def upstream_name(index: int, model: dict[str, Any]) -> str:
    """What requests for a model are passed to: its group, or the variable that chooses between two."""
    return f"$gateway_arm_{index}" if model.get("canary") else f"redoubt_{index}"


def conversing(models: list[dict[str, Any]]) -> list[str]:
    """What requests are passed to whose server is chosen by the conversation."""
    return [upstream_name(index, model) for index, model in enumerate(models) if model.get("balance") == CONVERSATION]


def groups(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All groups: name, model, servers, drained, weights (of some servers), balance, backup.

    `backup` helps where none of the others is there.
    A canary falls back on the servers of the other revision. Nginx has no such help for groups that are chosen by a
    hash, so a canary never is.
    """
    found: list[dict[str, Any]] = []
    for index, model in enumerate(models):
        name = f"redoubt_{index}"
        both = {"model": model["name"], "weights": model.get("weights") or {}}
        rows = {"servers": model["servers"], "drained": model.get("drained") or []}
        found.append({"name": name, "backup": [], "balance": model.get("balance", LEAST_CONN), **rows, **both})
        canary = model.get("canary")
        if canary:
            rows = {key: canary.get(key) or [] for key in ("servers", "drained")}
            found.append({"name": f"{name}_canary", "backup": model["servers"], "balance": LEAST_CONN, **rows, **both})
    return found


def arms(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who gets which revision: for each model with a canary {variable, key, shares {percent or `*`: group}}."""
    found = []
    for index, model in enumerate(models):
        if model.get("canary"):
            percent = model["canary"]["percent"]
            shares = {f"{percent}%": f"redoubt_{index}_canary"} if percent else {}
            shares |= {"*": f"redoubt_{index}"} if percent < 100 else {}
            # The name of the model too, or the same keys would be the canaries of all models.
            key = f"$gateway_client:{model['name']}"
            found.append({"variable": f"$gateway_arm_{index}", "key": key, "shares": shares})
    return found
