# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The policy on pages for people: nobody sees one without a password, and no page learns a password or a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policy.promises import Plan, at, refuses
from policy.tree import Node

REALM = "people"
#: Headers that a page must get from the gateway alone: what a client writes there is not handed on.
OWN_HEADERS = {
    "Authorization": "",
    "X-API-Key": "",
    "X-WEBAUTH-USER": "$remote_user",
    "X-Forwarded-For": "$remote_addr",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-User": "",
    "Upgrade": "",
}
IDENTITY = ("auth_basic", "auth_basic_user_file", "satisfy", "allow", "deny")


def people_page(location: Node, row: dict[str, Any], index: int) -> Iterator[str]:
    """The promises of a page's location."""
    path = row["path"]
    if location.args != ["^~", path]:
        yield at(location, f"location {' '.join(location.args)}: a page for people stands at '^~ {path}'")
    target = location.find("proxy_pass")[-1].args[0]
    if target != f"http://{row['upstream']}/":
        yield at(location, f"proxy_pass {target} is not what the plan says for {path}")
    if [node.args for node in location.find("auth_basic")] != [[REALM]]:
        yield at(location, f"{path} is open without a password ('auth_basic {REALM}' is missing)")
    if [node.args for node in location.find("auth_basic_user_file")] != [[row["file"]]]:
        yield at(location, f"{path}: its passwords must be those of {row['file']}")
    if row["addresses"] and not refuses(location, [f"$gateway_people_from_{index}", "=", "0"], ("403",)):
        yield at(location, f"{path} does not check the address")
    if not refuses(location, [f"$gateway_people_method_{index}", "=", "0"], ("405",)):
        yield at(location, f"{path} does not check the method")
    if [node.args[0] for node in location.find("limit_req")] != ["zone=gateway_people"]:
        yield at(location, f"{path}: passwords could be tried without end ('limit_req zone=gateway_people' is missing)")
    given = {node.args[0]: node.args[1] for node in location.find("proxy_set_header")}
    for name, value in OWN_HEADERS.items():
        if given.get(name) != value:
            yield at(
                location, f"{path}: the header {name} must be {value or 'empty'}, whatever the client writes there"
            )


def people_elsewhere(root: Node, plan: Plan) -> Iterator[str]:
    """What must not stand outside pages, and what their tables must hold."""
    tables = {tuple(node.args): node for node in root.walk() if node.name in ("map", "geo")}
    for node in root.walk():
        within = node.parent is not None and node.parent.name == "location" and node.parent.args[-1] in plan.people
        if node.name in IDENTITY and (not within or node.name not in IDENTITY[:2]):
            yield at(node, f"{node.name} has no place here")
        if node.name == "set" and node.args[0] == "$gateway_people" and node.args[1] and not within:
            yield at(node, "$gateway_people must be set in pages for people only")
    for index, row in enumerate(plan.people.values()):
        if row["addresses"]:
            table = tables.get((f"$gateway_people_from_{index}",))
            rows = {child.name: child.args[0] for child in table.children} if table else {}
            if rows != {**dict.fromkeys(row["addresses"], "1"), "default": "0"}:
                yield f"nginx.conf: $gateway_people_from_{index} must be 1 for the addresses of {row['path']} alone"
        table = tables.get(("$request_method", f"$gateway_people_method_{index}"))
        rows = {child.name: child.args[0] for child in table.children} if table else {}
        if rows != {**dict.fromkeys(row["methods"], "1"), "default": "0"}:
            yield f"nginx.conf: $gateway_people_method_{index} must be 1 for the methods of {row['path']} alone"
