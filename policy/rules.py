# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The gateway's policy on a rendered Nginx configuration. Denied by default.

`nginx -t` says whether Nginx can read a configuration; this says whether it keeps the gateway's promises.
A directive that the policy does not know is refused, so that nothing new comes in unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from policy.balance import arms, groups
from policy.directives import KNOWN
from policy.locations import choosing, proxied
from policy.people_rules import people_check, people_elsewhere, people_page
from policy.promises import Plan, at, refuses
from policy.tree import Node, parse
from policy.upstreams import upstreams

SECRET_VARIABLE = re.compile(
    r"\$\{?(http_authorization|http_x_api_key|http_cookie|cookie_\w+|args|arg_\w+|query_string|request_body|"
    r"request_uri|request|gateway_key_id|gateway_key_record|gateway_token|gateway_tail|gateway_held|gateway_opening|"
    r"gateway_conversation|ssl_client_raw_cert)\b"
)
LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|\[::1\]):\d+\Z")
SCRIPTS = (
    ["$gateway_verdict", "keys.verdict"],
    ["$gateway_known", "keys.known"],
    ["$gateway_given", "usage.path"],
    ["$gateway_conversation", "conversations.key"],
)
ZONES = ("gateway_quota", "gateway_tokens")
PROGRAMS = ("conversations.js", "keys.js", "models.js", "page.js", "usage.js")
ADDRESS_GUARD = ["$gateway_admitted", "=", "0"]
ADMITTED = {"default": "1", "00": "0"}
HEALTH = {"default": "0", "/healthz": "$gateway_local"}
SETTABLE = ("$gateway_model", "$gateway_route", "$gateway_people", "$args")
HTTP_LIMITS = ("client_max_body_size", "client_header_timeout", "client_body_timeout", "large_client_header_buffers")


def _directives(root: Node, plan: Plan) -> Iterator[str]:
    for node in root.walk():
        if node.parent is not None and node.parent.name in ("map", "geo", "split_clients"):
            continue
        if node.name not in KNOWN:
            yield at(node, f"directive '{node.name}' is not known to the policy")
        if node.name == "include" and node.args[0] not in plan.includes:
            yield at(node, f"include {node.args[0]} could bring in anything - only {sorted(plan.includes)} may be")
        if node.name == "if" and any(arg.lstrip("!").startswith("~") for arg in node.args):
            yield at(node, "a regular expression decides - use exact values")
        if node.name == "if" and [child.name for child in node.children] != ["return"]:
            yield at(node, "only a return may stand in an if")
        if node.name == "set" and node.args[0] not in SETTABLE:
            yield at(node, f"{node.args[0]} must not be set: the guards may depend on it")
        if node.name == "js_set" and node.args not in SCRIPTS:
            yield at(node, f"js_set {' '.join(node.args)}: only {' and '.join(' '.join(v) for v in SCRIPTS)} are known")
        if node.name == "js_import" and node.args[0] not in PROGRAMS:
            yield at(node, f"js_import {node.args[0]} is none of {', '.join(PROGRAMS)}")
        if node.name == "js_preload_object":
            yield from _preloaded(node, plan)
        if node.name == "js_shared_dict_zone" and not any(node.args[0].startswith(f"zone={name}:") for name in ZONES):
            yield at(node, f"js_shared_dict_zone {node.args[0]} is none of {', '.join(ZONES)}")
        if node.name == "server_name" and any(arg.startswith("~") or "*" in arg for arg in node.args):
            yield at(node, "a pattern as server name - use exact names")


def _preloaded(node: Node, plan: Plan) -> Iterator[str]:
    """Objects that programs find ready: who may sign tokens stands there, so it comes from our own files alone."""
    if node.args not in [[name, "from", path] for name, path in plan.preloaded.items()]:
        yield at(node, f"js_preload_object {' '.join(node.args)} is not what the plan says")


def _maps(root: Node, plan: Plan) -> Iterator[str]:
    tables = {tuple(node.args): node for node in root.walk() if node.name in ("map", "geo")}
    for node in tables.values():
        if node.name != "map":
            continue
        for row in node.children:
            if row.name.startswith("~"):
                yield at(row, "a regular expression in a map (CVE-2026-42533, and patterns let too much in)")
    admitted = tables.get(("$gateway_allowed$gateway_local_health", "$gateway_admitted"))
    if admitted is None or {row.name: row.args[0] for row in admitted.children} != ADMITTED:
        yield "nginx.conf: $gateway_admitted must be 0 exactly for addresses outside the allowlist"
    health = tables.get(("$uri", "$gateway_local_health"))
    if health is None or {row.name: row.args[0] for row in health.children} != HEALTH:
        yield "nginx.conf: $gateway_local_health must open /healthz, and nothing else, to local addresses"
    allowed = tables.get(("$gateway_allowed",))
    if allowed is None or allowed.name != "geo":
        yield "nginx.conf: there is no allowlist (geo $gateway_allowed)"
        return
    rows = {row.name: (row.args[0] if row.args else "") for row in allowed.children}
    if rows.pop("default", None) != "0":
        yield at(allowed, "the allowlist must end with 'default 0'")
    extra = sorted(name for name, value in rows.items() if value != "0" and name not in plan.allowed)
    if extra:
        yield at(allowed, f"the allowlist holds {', '.join(extra)}, which gateway_allowed_cidrs does not")


def _logs(root: Node) -> Iterator[str]:
    formats = {}
    for node in root.walk():
        if node.name != "log_format":
            continue
        formats[node.args[0]] = node
        found = sorted({match[1] for match in SECRET_VARIABLE.finditer(" ".join(node.args[1:]))})
        if found:
            yield at(node, f"the log would hold ${', $'.join(found)}: keys or prompts may be in there")
    for node in root.walk():
        if node.name == "access_log" and node.args[0] != "off" and (node.args[1:2] or [""])[0] not in formats:
            yield at(node, "an access log without a format of ours (Nginx's own holds the whole request line)")
    for http in root.find("http"):
        if not http.find("access_log"):
            yield at(http, "no access_log: Nginx would write its own format")


def _kind(server: Node) -> str:
    """reject, redirect, local, or service (everything else)."""
    listens = server.find("listen")
    passes = [node for node in server.walk() if node.name == "proxy_pass"]
    last = server.find("return")
    if server.value("ssl_reject_handshake") == "on" and not passes:
        return "reject"
    if last and last[-1].args[0] == "444" and not server.find("location"):
        return "reject"
    if listens and all(LOOPBACK.match(listen.args[0]) for listen in listens) and not passes:
        return "local"
    target = last[-1].args[1:2] if last else []
    if target and target[0].startswith("https://") and not server.find("location"):
        return "redirect"
    return "service"


def _service(server: Node, plan: Plan) -> Iterator[str]:
    for listen in server.find("listen") or [server]:
        if "ssl" not in listen.args:
            yield at(listen, "a server without TLS")
    if not refuses(server, ADDRESS_GUARD, ("403", "444")):
        yield at(server, "a server without the address allowlist ('if ($gateway_admitted = 0)' must come first)")
    locations = [node for node in server.walk() if node.name == "location"]
    if not any(node.args == ["/"] for node in locations):
        yield at(server, "no 'location /' that refuses everything else")
    checks = {row["check"]: row for row in plan.people.values() if "check" in row}
    for location in locations:
        if location.args[0] in ("~", "~*"):
            yield at(location, "a regular expression as location - use '= /path'")
        if location.find("proxy_pass") and location.args[-1] in plan.people:
            path = location.args[-1]
            yield from people_page(location, plan.people[path], list(plan.people).index(path))
        elif location.find("proxy_pass") and location.args[-1] in checks:
            yield from people_check(location, checks[location.args[-1]])
        elif location.find("proxy_pass"):
            yield from proxied(location, plan)
        elif location.find("js_content"):
            yield from choosing(location, plan)
        elif not location.find("return"):
            yield at(location, f"location {' '.join(location.args)} neither answers nor refuses: it would serve files")
        elif location.args == ["/"] and location.find("return")[-1].args[0] != "404":
            yield at(location, "'location /' must return 404")
        if location.find("add_header"):
            yield at(location, "add_header in a location drops the server's security headers")


def _servers(http: Node, plan: Plan) -> Iterator[str]:
    defaults = set()
    for server in http.find("server"):
        kind = _kind(server)
        if kind == "reject":
            defaults |= {n.args[0] for n in server.find("listen") if "default_server" in n.args}
        elif kind == "redirect":
            if not refuses(server, ADDRESS_GUARD, ("403", "444")):
                yield at(server, "a redirecting server without the address allowlist")
        elif kind == "service":
            yield from _service(server, plan)
    for server in http.find("server"):
        for listen in server.find("listen"):
            if _kind(server) != "local" and listen.args[0] not in defaults:
                yield at(listen, f"unknown names on {listen.args[0]} meet no default server that rejects them")


def _general(http: Node) -> Iterator[str]:
    for name in HTTP_LIMITS:
        if http.value(name) in ("", "0"):
            yield at(http, f"no limit: {name}")
    for node in http.walk():
        if node.name == "client_max_body_size" and node.args == ["0"]:
            yield at(node, "no limit: client_max_body_size 0")
    if http.value("server_tokens") != "off":
        yield at(http, "server_tokens must be off")
    for node in [n for n in http.walk() if n.name == "ssl_protocols"] or [http]:
        if not node.args or set(node.args) - {"TLSv1.2", "TLSv1.3"}:
            yield at(node, "ssl_protocols must be TLSv1.2 and TLSv1.3, or TLSv1.3 alone")


def breaches(
    text: str,
    routes: list[dict[str, Any]],
    models: list[dict[str, Any]],
    allowed_cidrs: list[str],
    includes: list[str],
    preloaded: dict[str, str] | None = None,
    people: Sequence[dict[str, Any]] = (),
    pools: dict[str, str] | None = None,
) -> list[str]:
    """Every breach of the gateway's policy in a rendered nginx.conf, with its line; empty when there is none.

    `routes` is the table made by `gateway_routes`, `models` what it was made of; `includes` names the only
    files that may be included, `preloaded` the only objects for programs, and the file of each; `people` the
    pages for people (rows of `people_rows`), and `pools` the files of groups of servers, by the group.
    """
    wanted = groups(models)
    plan = Plan(
        routes={route["path"]: route for route in routes},
        servers={
            **{group["name"]: set(group["servers"]) for group in wanted},
            **{row["upstream"]: {row["server"]} for row in people},
        },
        drained={group["name"]: set(group["drained"]) for group in wanted},
        weights={group["name"]: group["weights"] for group in wanted},
        backup={group["name"]: set(group["backup"]) for group in wanted},
        balance={group["name"]: group["balance"] for group in wanted},
        arms={arm["variable"]: (arm["key"], arm["shares"]) for arm in arms(models)},
        allowed={str(item) for item in allowed_cidrs},
        pools=pools or {},
        includes={*includes, *(pools or {}).values()},
        preloaded=preloaded or {},
        people={row["path"]: row for row in people},
    )
    root, problems = parse(text)
    problems += [
        *_directives(root, plan),
        *_maps(root, plan),
        *_logs(root),
        *upstreams(root, plan),
        *people_elsewhere(root, plan),
    ]
    if len(root.find("http")) != 1:
        problems.append("nginx.conf: there must be one http block")
    for http in root.find("http"):
        problems += [*_general(http), *_servers(http, plan)]
    return problems
