# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The policy on the groups of servers: who is in them, and how requests are spread over them."""

from __future__ import annotations

from collections.abc import Iterator

from policy.promises import Plan, at
from policy.tree import Node

# Other directives that give a variable its value, and where its name stands among their arguments.
DEFINES = {"map": -1, "geo": -1, "js_set": 0, "js_var": 0}
# By the digest of a conversation's opening; consistent, so that a server more or less moves its own share alone.
BY_CONVERSATION = ["$gateway_conversation", "consistent"]


def upstreams(root: Node, plan: Plan) -> Iterator[str]:
    """Breaches of all groups."""
    for node in root.walk():
        if node.name == "upstream":
            yield from _included(node, plan)
            yield from _members(node, plan)
            yield from _balance(node, plan)
        elif node.name == "split_clients":
            yield from _arm(node, plan)
        elif node.name in DEFINES and node.args[DEFINES[node.name]] in plan.arms:
            yield at(node, f"{node.name} chooses a revision: only split_clients may")
        elif node.find("include"):
            for include in node.find("include"):
                if include.args[0] in plan.pools.values():
                    yield at(include, f"{include.args[0]} holds servers of one group and belongs nowhere else")


def _arm(node: Node, plan: Plan) -> Iterator[str]:
    """Who gets which revision: by the key's name alone, and as the plan has the shares."""
    key, shares = plan.arms.get(node.args[1], ("", {}))
    found = {row.name: " ".join(row.args) for row in node.children}
    if node.args[0] != key or found != shares:
        yield at(node, f"split_clients {' '.join(node.args)} {found} is not what the plan says: {key} {shares}")


def _included(node: Node, plan: Plan) -> Iterator[str]:
    """Servers stand here, or in the file of this very group: not in both, where one that is down would still be up."""
    wanted = [path for name, path in plan.pools.items() if name == node.args[0]]
    found = [include.args[0] for include in node.find("include")]
    if found != wanted:
        told = f"'include {wanted[0]};'" if wanted else "no include"
        yield at(node, f"{node.args[0]} has {', '.join(found) or 'no include'}, but the plan wants {told}")
    elif found and node.find("server"):
        yield at(node, f"{node.args[0]} has servers besides those of {found[0]}")
    elif not found and not node.find("server"):
        yield at(node, f"{node.args[0]} has no servers")


def _members(node: Node, plan: Plan) -> Iterator[str]:
    known = plan.servers.get(node.args[0], set())
    drained = plan.drained.get(node.args[0], set())
    for server in node.find("server"):
        if "backup" in server.args[1:] and server.args[0] in plan.backup.get(node.args[0], set()):
            continue
        if server.args[0] in drained:
            if "down" not in server.args[1:]:
                yield at(server, f"server {server.args[0]} of {node.args[0]} is drained, so it must be down")
        elif server.args[0] not in known:
            yield at(server, f"server {server.args[0]} of {node.args[0]} is not in the plan")
        else:
            weight = plan.weights.get(node.args[0], {}).get(server.args[0], 1)
            found = [word.partition("=")[2] for word in server.args if word.startswith("weight=")] or ["1"]
            if found != [str(weight)]:
                yield at(server, f"server {server.args[0]} of {node.args[0]} has weight {found[0]} instead of {weight}")


def _balance(node: Node, plan: Plan) -> Iterator[str]:
    wanted = plan.balance.get(node.args[0], "")
    by = [child.args for child in node.find("hash")]
    least = node.find("least_conn")
    if wanted == "conversation":
        if by != [BY_CONVERSATION] or least:
            told = f"'hash {' '.join(BY_CONVERSATION)};' alone"
            yield at(node, f"{node.args[0]} keeps a conversation's turns together, so it must have {told}")
    elif by:
        yield at(node, f"{node.args[0]} has 'hash {' '.join(by[0])}', but the plan wants no balance by conversation")
    elif len(plan.servers.get(node.args[0], ())) > 1 and not least:
        yield at(node, f"{node.args[0]} has several servers, so it must have 'least_conn;'")
    if node.find("keepalive") and (by or least):
        first = min(node.children.index(child) for child in [*node.find("hash"), *least])
        if first > node.children.index(node.find("keepalive")[0]):
            yield at(node, f"{node.args[0]}: how requests are spread must stand before 'keepalive'")
