# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the gateway role: refuse bad input before a host is touched.

Pure functions; nothing is read or written.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

# Ansible loads this file on its own; the project's packages lie beside filter_plugins.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from policy.balance import arms, balance_problems, canary_servers, conversing, groups
from policy.keys import key_problems, key_records
from policy.pools import gateway_pools, health_problems, pool_files
from policy.routes import gateway_model_list, gateway_routes

DNS_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
# Only characters that are the same before and after URL decoding.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
ROUTE = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+\Z")
SIZE = re.compile(r"[1-9][0-9]*[kKmMgG]?\Z")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OWN_PATHS = ("/healthz", "/page.css", "/page.js", "/ca.crt")
#: Minutes that lines of the audit log may wait for their seal.
MOST_MINUTES = 15
# Smallest values of the numeric settings.
LEAST = {
    "gateway_tls_certificate_days": 1,
    "gateway_tls_renew_days": 0,
    "gateway_stream_timeout": 600,
    "gateway_upstream_keepalive_timeout": 1,
    "gateway_drain_timeout": 1,
    "gateway_requests_per_second": 1,
    "gateway_request_burst": 0,
    "gateway_concurrent_requests": 1,
    "gateway_hsts_seconds": 0,
    "gateway_audit_days": 1,
    "gateway_audit_minutes": 1,
    "gateway_jwks_minutes": 1,
}


def _repeated(values: list[str]) -> list[str]:
    """The values that occur more than once when capital letters do not count (Nginx maps ignore case)."""
    counts = Counter(value.lower() for value in values)
    return sorted(value for value, count in counts.items() if count > 1)


def network_problem(value: object) -> str | None:
    """None for an IPv4 or IPv6 network or address, else why it is none."""
    try:
        ipaddress.ip_network(str(value), strict=True)
    except ValueError as error:
        return str(error)
    return None


def _networks(variable: str, value: Any, may_be_empty: bool) -> list[str]:
    if not isinstance(value, list):
        return [f"{variable}: {value!r} is not a list of networks - write [10.0.0.0/8, 'fd00::/8']"]
    if not value and not may_be_empty:
        return [
            f"{variable}: the list is empty, so nobody could come in - name the networks of the clients, "
            "for example [10.20.0.0/16]; 0.0.0.0/0 and ::/0 if really everybody may"
        ]
    found = [(item, network_problem(item)) for item in value]
    return [
        f"{variable}: {item!r} is no network ({problem}) - write it as 10.20.0.0/16 or fd00::/64"
        for item, problem in found
        if problem
    ]


def _server_names(value: Any) -> list[str]:
    variable = "gateway_server_names"
    if not isinstance(value, list) or not value:
        return [f"{variable}: no name is given - name the host as clients write it, for example [llm.example.org]"]
    problems = []
    for name in value:
        text = str(name)
        if network_problem(text) is None:
            problems.append(
                f"{variable}: {text!r} is an address; clients send no address in the TLS handshake - "
                "give a DNS name (an entry in the clients' hosts file is enough)"
            )
        elif not DNS_NAME.match(text):
            problems.append(f"{variable}: {text!r} is no DNS name in small letters (no wildcard, no pattern)")
    return problems + [f"{variable}: {name!r} is given twice" for name in _repeated([str(n) for n in value])]


def server_problem(server: str) -> str | None:
    """None for `host:port`, else why it is none."""
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        return "write host:port"
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if network_problem(bare) is None and "/" not in bare:
        return None
    return None if DNS_NAME.match(host) else "the host is neither an address nor a DNS name"


def _model(where: str, model: dict[str, Any]) -> list[str]:
    problems = []
    name = str(model.get("name", ""))
    if not MODEL_NAME.match(name):
        problems.append(f"{where}: the name {name!r} cannot be part of a path - use letters, digits, . _ - and /")
    servers = [*(model.get("servers") or []), *(model.get("drained") or [])]
    if not servers:
        problems.append(f"{where} ({name}): no servers - give the engines as [127.0.0.1:8101]")
    for server in [*servers, *canary_servers(model)]:
        problem = server_problem(str(server))
        if problem:
            problems.append(f"{where} ({name}): server {server!r}: {problem}")
    routes = model.get("routes") or []
    if not routes:
        problems.append(f"{where} ({name}): no routes - at least {{path: /v1/models, methods: [GET], stream: false}}")
    for route in routes:
        path, methods = str(route.get("path", "")), route.get("methods") or []
        if not ROUTE.match(path):
            problems.append(f"{where} ({name}): route {path!r} is no exact path")
        if not methods or set(methods) - set(METHODS):
            problems.append(f"{where} ({name}): route {path}: methods {methods!r} - use some of {', '.join(METHODS)}")
        if not isinstance(route.get("stream", False), bool):
            problems.append(f"{where} ({name}): route {path}: stream must be true or false")
    if not ROUTE.match(str(model.get("health_path", "/health"))):
        problems.append(f"{where} ({name}): health_path {model['health_path']!r} is no exact path")
    limit = model.get("concurrent_requests", 1)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        problems.append(f"{where} ({name}): concurrent_requests: {limit!r} must be a whole number, 1 or more")
    return problems + balance_problems(f"{where} ({name})", model)


def _models(value: Any) -> list[str]:
    variable = "gateway_models"
    if not isinstance(value, list) or not value:
        return [f"{variable}: no model - the plan gives them, or write [{{name:, servers:, routes:}}]"]
    problems = []
    for index, model in enumerate(value):
        problems += _model(f"{variable}[{index}]", model)
    if problems:
        return problems
    paths = [route["path"] for route in gateway_routes(value)]
    for path in sorted(path for path, count in Counter([*paths, *OWN_PATHS]).items() if count > 1):
        problems.append(f"{variable}: two routes would have the path {path} - rename a model")
    return problems


def _address_problem(value: object) -> str | None:
    try:
        ipaddress.ip_address(str(value))
    except ValueError as error:
        return str(error)
    return None


def _listening(settings: dict[str, Any]) -> list[str]:
    problems = []
    addresses = settings.get("gateway_listen_addresses")
    if not isinstance(addresses, list) or not addresses:
        problems.append("gateway_listen_addresses: no address - write ['0.0.0.0', '::'] for all")
    else:
        problems += [
            f"gateway_listen_addresses: {item!r} is no IP address ({problem})"
            for item in addresses
            if (problem := _address_problem(item))
        ]
    ports: dict[int, str] = {}
    for variable in ("gateway_http_port", "gateway_https_port", "gateway_status_port"):
        port = settings.get(variable)
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            problems.append(f"{variable}: {port!r} is no port - write a number from 1 to 65535 without quotes")
        elif port in ports:
            problems.append(f"{variable}: port {port} is {ports[port]} already")
        else:
            ports[port] = variable
    return problems


def _numbers(settings: dict[str, Any]) -> list[str]:
    problems = []
    for variable, least in LEAST.items():
        value = settings.get(variable, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            problems.append(f"{variable}: {value!r} must be a whole number without quotes, {least} or more")
    days, early = (settings.get(f"gateway_tls_{name}_days") for name in ("certificate", "renew"))
    if isinstance(days, int) and isinstance(early, int) and early >= days:
        problems.append(f"gateway_tls_renew_days: {early} is not below gateway_tls_certificate_days ({days})")
    return problems


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def gateway_problems(settings: dict[str, Any]) -> list[str]:
    """Everything that is wrong with the gateway's variables, one line each; empty when all is well.

    `settings` maps variable names (`gateway_…`) to values. TLS files are checked by `gateway_tls_problems`.
    No secret is ever part of a line.
    """
    problems = [
        *_server_names(settings.get("gateway_server_names")),
        *_networks("gateway_allowed_cidrs", settings.get("gateway_allowed_cidrs"), may_be_empty=False),
        *_networks("gateway_health_cidrs", settings.get("gateway_health_cidrs", []), may_be_empty=True),
        *key_problems(
            settings.get("gateway_api_keys", []),
            settings.get("gateway_issued_keys", []),
            _dicts(settings.get("gateway_models")),
            needed=not settings.get("gateway_jwt_issuers"),
        ),
        *_models(settings.get("gateway_models")),
        *_listening(settings),
        *_numbers(settings),
        *health_problems(settings),
    ]
    if not SIZE.match(str(settings.get("gateway_max_body_size"))):
        problems.append(
            f"gateway_max_body_size: {settings.get('gateway_max_body_size')!r} is no size above 0 - write 32m"
        )
    minutes = settings.get("gateway_audit_minutes")
    if isinstance(minutes, int) and minutes > MOST_MINUTES:
        problems.append(
            f"gateway_audit_minutes: {minutes} is above {MOST_MINUTES} - what is not sealed yet can be altered"
            " unseen, and the alert comes after 30 minutes"
        )
    return problems


def gateway_generation(text: str, more: list[str]) -> dict[str, str]:
    """A configuration with its own name in place of `@generation@`: {text, generation}.

    The name is a digest of the text and of what else the service loads (`more`), so it changes with either.
    """
    parts = [hashlib.sha256(part.encode()).hexdigest() for part in [text, *more]]
    name = hashlib.sha256("".join(parts).encode()).hexdigest()[:24]
    return {"text": text.replace("@generation@", name), "generation": name}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {
            "gateway_problems": gateway_problems,
            "gateway_key_records": key_records,
            "gateway_arms": arms,
            "gateway_conversing": conversing,
            "gateway_groups": groups,
            "gateway_pools": gateway_pools,
            "gateway_pool_files": pool_files,
            "gateway_routes": gateway_routes,
            "gateway_model_list": gateway_model_list,
            "gateway_generation": gateway_generation,
        }
