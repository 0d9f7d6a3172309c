# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the depot role: what is wrong with its settings. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
# What Nginx takes as one word, and what no other program reads as more than one.
PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9][A-Za-z0-9._-]*)+")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _list(settings: Mapping[str, Any], name: str) -> list[Any]:
    value = settings[name]
    return list(value) if isinstance(value, (list, tuple)) else []


def _names(settings: Mapping[str, Any]) -> Iterator[str]:
    named = [("depot_address", settings["depot_address"])]
    named += [("depot_server_names", name) for name in _list(settings, "depot_server_names")]
    for variable, name in named:
        if not isinstance(name, str) or not (_is_address(name) or DNS_NAME.fullmatch(name)):
            yield f"{variable}: {name!r} is neither an address nor a DNS name in lower case - write 10.0.0.5 or a name"


def _networks(settings: Mapping[str, Any]) -> Iterator[str]:
    networks = _list(settings, "depot_allowed_cidrs")
    if not networks:
        yield "depot_allowed_cidrs: is empty, so no host could read the depot - list the networks of the hosts"
    for network in networks:
        try:
            parsed = ipaddress.ip_network(network)
        except ValueError as error:
            yield f"depot_allowed_cidrs: {network!r} is no network ({error}) - write it like 10.0.0.0/24"
            continue
        if parsed.prefixlen == 0:
            yield f"depot_allowed_cidrs: {network} is everybody - list the networks of the hosts"


def depot_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the role's variables, each by its name; empty when all is well."""
    problems = [*_names(settings), *_networks(settings)]
    listening = _list(settings, "depot_listen_addresses")
    if not listening:
        problems.append("depot_listen_addresses: is empty - write 0.0.0.0 for every address of the host")
    problems += [
        f"depot_listen_addresses: {address!r} is no address - write 0.0.0.0, :: or an address of the host"
        for address in listening
        if not isinstance(address, str) or not _is_address(address)
    ]
    port, days, renew = (
        int(settings[name]) for name in ("depot_port", "depot_tls_certificate_days", "depot_tls_renew_days")
    )
    if not 0 < port < 65536:
        problems.append(f"depot_port: {port} is no port - write a number from 1 to 65535")
    if not PLAIN_PATH.fullmatch(str(settings["depot_directory"])):
        problems.append(
            f"depot_directory: {settings['depot_directory']!r} is not an absolute path of letters, digits, '.', '_' "
            "and '-' - write it like /srv/redoubt/depot"
        )
    if not 0 < renew < days:
        problems.append(
            f"depot_tls_renew_days: {renew} must be at least 1 and below "
            f"depot_tls_certificate_days ({days}), or each run makes a new certificate"
        )
    return problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"depot_problems": depot_problems}
