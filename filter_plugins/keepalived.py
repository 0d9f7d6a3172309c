# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Virtual addresses of the gateways: what the role keepalived judges and what it configures. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
WILDCARDS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - compared with, not bound

#: VRRP's priorities go to 254; the rest is left to who joins later.
HIGHEST = 200
STEP = 10
MOST = HIGHEST // STEP


def _version(address: str) -> int:
    """4 or 6. Raises ValueError."""
    return ipaddress.ip_interface(address).version


def _address_problems(addresses: Sequence[str], peers: Sequence[str]) -> list[str]:
    problems = []
    for text in addresses:
        where = f"keepalived_virtual_addresses: {text}"
        try:
            found = ipaddress.ip_interface(text)
        except ValueError:
            problems.append(f"{where} is no address. Fix: an address with its prefix length, such as 10.20.0.10/24")
            continue
        if "/" not in text:
            problems.append(f"{where} has no prefix length. Fix: that of its network, such as {text}/24")
        if str(found.ip) in peers:
            problems.append(f"{where} is a gateway's own address. Fix: one that no host has")
    return problems


def _peer_problems(own: str, peers: Sequence[str]) -> list[str]:
    problems = []
    for text in peers:
        try:
            if not ipaddress.ip_address(text).is_loopback:
                continue
            why = "is an address that no other gateway can reach"
        except ValueError:
            why = "is no address"
        problems.append(
            f"keepalived_peers: {text} {why}. Fix: as redoubt_private_address of each gateway an address of its own"
        )
    if own not in peers:
        problems.append(f"keepalived_peers: {own or 'keepalived_address'} is not among them. Fix: name every gateway")
    if not 2 <= len(set(peers)) <= MOST:
        problems.append(
            f"keepalived_peers: {len(set(peers))} gateways cannot stand in for each other. Fix: 2 to {MOST} in the"
            " group gateways, or no keepalived_virtual_addresses"
        )
    return problems


def _gateway_problems(settings: Mapping[str, Any], versions: set[int]) -> list[str]:
    listens = settings["keepalived_gateway_listen_addresses"]
    problems = [
        f"gateway_listen_addresses: lacks {WILDCARDS[version]}, so Nginx would not answer on virtual addresses of"
        f" IPv{version}. Fix: listen on it, and let the firewall choose who comes in"
        for version in sorted(versions)
        if WILDCARDS[version] not in listens
    ]
    if settings["keepalived_gateway_tls_mode"] == "private_ca":
        problems.append(
            "gateway_tls_mode: private_ca makes a CA on each gateway, and clients would meet both at one address."
            " Fix: files, with one certificate for all"
        )
    return problems


def keepalived_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the role's variables, one line each, with the fix.

    `settings` maps names of variables to values. Where no address is wanted, nothing is wrong.
    """
    addresses = settings["keepalived_virtual_addresses"]
    if not addresses:
        return []
    own, peers = settings["keepalived_address"], settings["keepalived_peers"]
    problems = _address_problems(addresses, peers) + _peer_problems(own, peers)
    if not 1 <= int(settings["keepalived_router_id"]) <= 255:
        problems.append(
            f"keepalived_router_id: {settings['keepalived_router_id']} is not between 1 and 255. Fix: a free number"
        )
    if not settings["keepalived_check_url"]:
        problems.append(
            "keepalived_check_url: empty, so a gateway that is down would keep the addresses. Fix: its /healthz"
        )
    if problems:
        return problems
    if _version(own) not in {_version(text) for text in addresses}:
        problems.append(
            f"keepalived_virtual_addresses: the gateways speak IPv{_version(own)} with each other, and none of these is"
            " of it. Fix: one address of that version more"
        )
    return problems + _gateway_problems(settings, {_version(text) for text in addresses})


def keepalived_plan(settings: Mapping[str, Any]) -> Document:
    """What the template needs: {priority, others: [addresses], addresses, excluded}.

    VRRP speaks one version of IP in one instance; addresses of the other one move with it as `excluded` ones.
    Asks for settings in which `keepalived_problems` finds nothing.
    """
    own, peers = settings["keepalived_address"], list(dict.fromkeys(settings["keepalived_peers"]))
    addresses = settings["keepalived_virtual_addresses"]
    version = _version(own)
    return {
        "priority": HIGHEST - STEP * peers.index(own),
        "others": [peer for peer in peers if peer != own],
        "addresses": [text for text in addresses if _version(text) == version],
        "excluded": [text for text in addresses if _version(text) != version],
    }


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Names as used in templates."""
        return {"keepalived_plan": keepalived_plan, "keepalived_problems": keepalived_problems}
