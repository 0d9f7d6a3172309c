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
    "X-Forwarded-For": "$remote_addr",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-User": "",
    "Upgrade": "",
}
IDENTITY = ("auth_basic", "auth_basic_user_file", "auth_request", "auth_request_set")
ASKED_NAME = ["$gateway_people_user", "$upstream_http_x_auth_request_user"]


def people_page(location: Node, row: dict[str, Any], index: int) -> Iterator[str]:
    """The promises of a page's location."""
    path = row["path"]
    if location.args != ["^~", path]:
        yield at(location, f"location {' '.join(location.args)}: a page for people stands at '^~ {path}'")
    target = location.find("proxy_pass")[-1].args[0]
    if target != f"http://{row['upstream']}" + ("" if row["login"] == "sign_in" else "/"):
        yield at(location, f"proxy_pass {target} is not what the plan says for {path}")
    yield from _identity(location, row)
    if row["addresses"] and not refuses(location, [f"$gateway_people_from_{index}", "=", "0"], ("403",)):
        yield at(location, f"{path} does not check the address")
    if not refuses(location, [f"$gateway_people_method_{index}", "=", "0"], ("405",)):
        yield at(location, f"{path} does not check the method")
    if [node.args[0] for node in location.find("limit_req")] != ["zone=gateway_people"]:
        yield at(location, f"{path}: passwords could be tried without end ('limit_req zone=gateway_people' is missing)")
    yield from _headers(location, {**OWN_HEADERS, "X-WEBAUTH-USER": row["name"].strip('"')})


def _headers(location: Node, wanted: dict[str, str]) -> Iterator[str]:
    given = {node.args[0]: node.args[1] for node in location.find("proxy_set_header")}
    for name, value in wanted.items():
        if given.get(name) != value:
            told = f"the header {name} must be {value or 'empty'}, whatever clients write there"
            yield at(location, f"{location.args[-1]}: {told}")


def _identity(location: Node, row: dict[str, Any]) -> Iterator[str]:
    """Whom the page asks who it is: exactly what the plan says, and nobody else."""
    path = row["path"]
    wanted: dict[str, list[list[str]]] = {name: [] for name in IDENTITY}
    if row["login"] == "password":
        wanted |= {"auth_basic": [[REALM]], "auth_basic_user_file": [[row["file"]]]}
    elif row["login"] == "oidc":
        wanted |= {"auth_request": [[row["check"]]], "auth_request_set": [ASKED_NAME]}
    for name, value in wanted.items():
        if [node.args for node in location.find(name)] != value:
            told = " ".join([name, *value[0]]) if value else f"no {name}"
            yield at(location, f"{path} is open to others than the plan says ('{told}')")


def people_check(location: Node, row: dict[str, Any]) -> Iterator[str]:
    """The promises of the question to the OIDC proxy: the right one, of the gateway alone, without body or key."""
    path = row["check"]
    if location.args != ["=", path] or not location.find("internal"):
        yield at(location, f"{path} is for the gateway's own questions only ('internal;' is missing)")
    target = location.find("proxy_pass")[-1].args[0]
    if target != row["question"]:
        yield at(location, f"proxy_pass {target} is not the question of {row['path']}")
    if location.value("proxy_pass_request_body") != "off":
        yield at(location, f"{path} hands bodies on to the OIDC proxy")
    yield from _headers(location, {**OWN_HEADERS, "X-WEBAUTH-USER": "", "Content-Length": ""})


def people_elsewhere(root: Node, plan: Plan) -> Iterator[str]:
    """What must not stand outside pages, and what their tables must hold."""
    tables = {tuple(node.args): node for node in root.walk() if node.name in ("map", "geo")}
    checks = {row["check"] for row in plan.people.values() if "check" in row}
    for node in root.walk():
        here = node.parent.args[-1] if node.parent is not None and node.parent.name == "location" else ""
        within = here in plan.people or here in checks
        if node.name in IDENTITY and here not in plan.people:
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
