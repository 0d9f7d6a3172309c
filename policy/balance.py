# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""How a model's requests are spread over its servers: what may be wanted. Pure functions."""

from __future__ import annotations

from typing import Any

LEAST_CONN, CONVERSATION = "least_conn", "conversation"


def balance_problems(where: str, model: dict[str, Any]) -> list[str]:
    """What is wrong with a model's `balance`."""
    wanted = model.get("balance", LEAST_CONN)
    if wanted in (LEAST_CONN, CONVERSATION):
        return []
    return [
        f"{where}: balance: {wanted!r} is not known - {LEAST_CONN} spreads evenly, {CONVERSATION} keeps the turns of a"
        " conversation on one server"
    ]


def conversing(models: list[dict[str, Any]]) -> list[str]:
    """The groups of servers that are chosen by the conversation, by their names in Nginx."""
    return [f"redoubt_{index}" for index, model in enumerate(models) if model.get("balance") == CONVERSATION]
