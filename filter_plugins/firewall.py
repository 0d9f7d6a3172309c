# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may reach which port: what the role firewall judges, and what a site's services need. Pure functions."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

Document = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FAMILIES = {4: "ip", 6: "ip6"}
#: Protocols that know no ports.
PORTLESS = ("vrrp",)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}\*?")


def _range(text: object) -> tuple[int, int]:
    """First and last port of ``443`` or ``8000-8010``. Raises ValueError."""
    found = PORTS.fullmatch(str(text).strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{text!r} is neither a port (1 to 65535) nor a range of ports such as 8000-8010")
    return first, last


def _ports(texts: Iterable[object]) -> list[str]:
    """The ports in order, with what overlaps put together: nft refuses overlapping ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(_range(text) for text in texts):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return [str(first) if first == last else f"{first}-{last}" for first, last in merged]


def _networks(texts: Iterable[str], version: int) -> list[str]:
    """The networks of one version of IP, with what overlaps put together."""
    every = [ipaddress.ip_network(str(text).strip()) for text in texts]
    if version == 4:
        return [str(net) for net in ipaddress.collapse_addresses(n for n in every if n.version == 4)]
    return [str(net) for net in ipaddress.collapse_addresses(n for n in every if n.version == 6)]


def firewall_rows(rules: Sequence[Mapping[str, Any]]) -> list[Document]:
    """The rules for the template, one row for each version of IP. ValueError for what `firewall_problems` names."""
    return [
        {
            "name": rule["name"],
            "family": family,
            "sources": networks,
            "protocol": rule.get("protocol") or "tcp",
            "ports": _ports(rule.get("ports") or []),
        }
        for rule in rules
        for version, family in FAMILIES.items()
        if (networks := _networks(rule["sources"], version))
    ]


def _network_problems(where: str, texts: Sequence[str]) -> list[str]:
    problems = []
    for text in texts:
        try:
            ipaddress.ip_network(str(text).strip())
        except ValueError as error:
            fix = "write a network such as 10.0.0.0/24 or fd00:1::/64, or one address"
            problems.append(f"{where}: {error}. Fix: {fix}")
    return problems


def _rule_problems(where: str, rule: Mapping[str, Any]) -> list[str]:
    problems = []
    if not NAME.fullmatch(str(rule["name"])):
        problems.append(f"{where}: use letters, digits, blanks, dots, - and _ in a name, 63 at most")
    if not rule["sources"]:
        problems.append(f"{where}: sources is empty, so nobody could come in. Fix: name networks, or remove the rule")
    ports = rule.get("ports") or []
    if rule.get("protocol") in PORTLESS and ports:
        problems.append(f"{where}: {rule['protocol']} has no ports. Fix: remove ports")
    elif not ports and rule.get("protocol") not in PORTLESS:
        problems.append(f"{where}: ports is empty. Fix: name ports, or remove the rule")
    for port in ports:
        try:
            _range(port)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return problems + _network_problems(f"{where}, sources", rule["sources"])


def firewall_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the role's variables, one line each, with the fix; preflight asks too, for the whole site.

    `settings` maps names of variables to values. Where the firewall is not wanted, nothing is wrong.
    """
    if not settings.get("firewall_enabled"):
        return []
    rules = settings.get("firewall_rules") or []
    ssh_cidrs = settings.get("firewall_ssh_cidrs") or []
    confirm_seconds = int(settings.get("firewall_confirm_seconds", 60))
    interfaces = settings.get("firewall_container_interfaces") or []
    problems = list(
        chain.from_iterable(_rule_problems(f"firewall_rules[{rule['name']}]", rule) for rule in rules),
    )
    if not ssh_cidrs:
        fix = "name the networks of the control host and of the administrators, such as 10.0.9.0/24"
        problems.append(f"firewall_ssh_cidrs is empty, so nobody could log in any more. Fix: {fix}")
    problems += _network_problems("firewall_ssh_cidrs", ssh_cidrs)
    if not 20 <= confirm_seconds <= 3600:
        why = "a new connection needs some seconds, and a host without its control host should not wait for hours"
        problems.append(f"firewall_confirm_seconds is {confirm_seconds}: {why}. Fix: between 20 and 3600")
    for name in interfaces:
        if not INTERFACE.fullmatch(str(name)):
            fix = "write a name such as docker0, or its beginning with a star such as br-*"
            problems.append(f"firewall_container_interfaces: {name!r} is no interface. Fix: {fix}")
    return problems


def _remote(addresses: Iterable[str]) -> list[str]:
    """Addresses that another machine can have, each once."""
    return sorted({address for address in addresses if not ipaddress.ip_address(address).is_loopback})


def _loopback(listener: Mapping[str, Any]) -> bool:
    return ipaddress.ip_address(listener["address"]).is_loopback


def firewall_site_rules(plan: Document, site: Document) -> list[Document]:
    """What other machines must reach on the host of this plan.

    `site`: {addresses: {gateways|inference|monitoring|depot: [private addresses]}, gateway_clients: [networks],
    gateway_ports: [ports], depot_port: port, fanout_port: port or null, vrrp: whether the gateways share addresses}.
    """
    addresses = {kind: _remote(rows) for kind, rows in site["addresses"].items()}
    watchers = addresses.get("monitoring", [])
    engines = sorted({row["port"] for row in plan["engines"] if not _loopback(row)})
    exporters = [plan[key] for key in ("exporter", "gpu_exporter") if plan.get(key)]
    wanted: list[tuple[str, Sequence[object], Sequence[str]]] = [
        ("engines", engines, [*addresses.get("gateways", []), *watchers]),
        ("exporters", sorted({row["port"] for row in exporters if not _loopback(row)}), watchers),
    ]
    if "gateway" in plan["kinds"]:
        wanted.append(("gateway", site["gateway_ports"], [*site["gateway_clients"], *watchers]))
    if "depot" in plan["kinds"]:
        wanted.append(("depot", [site["depot_port"]], list(chain.from_iterable(addresses.values()))))
    if "inference" in plan["kinds"] and site["fanout_port"]:
        wanted.append(("weights fanout", [site["fanout_port"]], addresses.get("inference", [])))
    rules: list[Document] = [
        {"name": name, "ports": list(ports), "protocol": "tcp", "sources": list(dict.fromkeys(sources))}
        for name, ports, sources in wanted
        if ports and sources
    ]
    gateways = addresses.get("gateways", [])
    if "gateway" in plan["kinds"] and site.get("vrrp") and gateways:
        rules.append({"name": "virtual addresses", "ports": [], "protocol": "vrrp", "sources": gateways})
    return rules


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Names as used in templates."""
        return {
            "firewall_problems": firewall_problems,
            "firewall_rows": firewall_rows,
            "firewall_site_rules": firewall_site_rules,
        }
