# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a configuration is judged by: the plan, and which guards a block begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policy.tree import Node


@dataclass(frozen=True)
class Plan:
    """What the configuration may do."""

    routes: dict[str, dict[str, Any]]
    servers: dict[str, set[str]]
    drained: dict[str, set[str]]
    balance: dict[str, str]
    pools: dict[str, str]
    backup: dict[str, set[str]]
    weights: dict[str, dict[str, int]]
    arms: dict[str, tuple[str, dict[str, str]]]
    allowed: set[str]
    includes: set[str]
    preloaded: dict[str, str]
    people: dict[str, dict[str, Any]]


def at(node: Node, text: str) -> str:
    """A breach, with its line."""
    return f"nginx.conf line {node.line}: {text}"


def guards(block: Node) -> list[list[str]]:
    """Conditions that come before the block's own unconditional `return`, in order.

    Nginx runs if, set and return in the order written and before everything else, wherever that stands.
    """
    found = []
    for child in block.children:
        if child.name == "if":
            found.append(child.args)
        elif child.name == "return":
            break
    return found


def refuses(block: Node, guard: list[str], statuses: tuple[str, ...]) -> bool:
    """Whether a block ends requests with one of these statuses where the guard's condition holds."""
    return any(
        child.name == "if"
        and child.args == guard
        and [c.name for c in child.children] == ["return"]
        and child.children[0].args[0] in statuses
        for child in block.children
    ) and guard in guards(block)
