"""The firewall's judgements: rows for nft, what is refused, and what a site's services need."""

from __future__ import annotations

from typing import Any

import pytest

from filter_plugins.firewall import firewall_problems, firewall_rows, firewall_site_rules
from roles.firewall.files.firewall import source_problem

RULE: dict[str, Any] = {
    "name": "web",
    "ports": ["443", "8000-8010", "8005-8020"],
    "sources": ["10.0.0.0/25", "10.0.0.128/25", "fd00::/64"],
}
SITE: dict[str, Any] = {
    "addresses": {
        "depot": ["10.0.0.9"],
        "gateways": ["10.0.0.1"],
        "inference": ["10.0.0.2", "10.0.0.3"],
        "monitoring": ["127.0.0.1", "10.0.0.4"],
    },
    "gateway_clients": ["192.0.2.0/24"],
    "gateway_ports": ["80", "443"],
    "depot_port": 8443,
    "fanout_port": None,
}


def plan(*kinds: str, address: str = "10.0.0.2") -> dict[str, Any]:
    engines = [{"address": address, "port": 8101}] if "inference" in kinds else []
    exporter = {"address": address, "port": 9100}
    return {"kinds": list(kinds), "engines": engines, "exporter": exporter, "gpu_exporter": None}


def rules(made: dict[str, Any], **site: Any) -> dict[str, tuple[list[Any], list[str]]]:
    return {row["name"]: (row["ports"], row["sources"]) for row in firewall_site_rules(made, SITE | site)}


def problems(**changes: Any) -> list[str]:
    wishes = {"enabled": True, "ssh_cidrs": ["10.0.0.0/8"], "container_interfaces": ["docker0", "br-*"]} | changes
    return firewall_problems({f"firewall_{name}": value for name, value in wishes.items()})


def test_rows_are_split_by_version_and_merged() -> None:
    assert [(row["family"], row["sources"], row["ports"]) for row in firewall_rows([RULE])] == [
        ("ip", ["10.0.0.0/24"], ["443", "8000-8020"]),
        ("ip6", ["fd00::/64"], ["443", "8000-8020"]),
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sources": []}, "sources is empty"),
        ({"sources": ["10.0.0.1/8"]}, "has host bits set"),
        ({"ports": []}, "ports is empty"),
        ({"ports": ["0"]}, "neither a port"),
        ({"ports": ["9-8"]}, "neither a port"),
        ({"name": 'x" accept'}, "use letters"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_named(change: dict[str, Any], why: str) -> None:
    assert problems(rules=[RULE]) == []
    (problem,) = problems(rules=[RULE | change])
    assert why in problem


def test_other_variables_are_judged() -> None:
    assert "firewall_ssh_cidrs is empty" in problems(ssh_cidrs=[])[0]
    assert "between 20 and 3600" in problems(confirm_seconds=5)[0]
    assert "no interface" in problems(container_interfaces=['a" accept'])[0]
    assert problems(ssh_cidrs=[], enabled=False) == []


def test_engines_are_for_gateways_and_monitoring_only() -> None:
    assert rules(plan("inference")) == {
        "engines": ([8101], ["10.0.0.1", "10.0.0.4"]),
        "exporters": ([9100], ["10.0.0.4"]),
    }
    assert rules(plan("inference"), fanout_port=18443)["weights fanout"] == ([18443], ["10.0.0.2", "10.0.0.3"])
    assert rules(plan("inference", address="127.0.0.1")) == {}


def test_gateway_and_depot() -> None:
    assert rules(plan("gateway"))["gateway"] == (["80", "443"], ["192.0.2.0/24", "10.0.0.4"])
    assert set(rules(plan("depot"))["depot"][1]) == {f"10.0.0.{last}" for last in (1, 2, 3, 4, 9)}


@pytest.mark.parametrize(
    ("source", "check", "why"),
    [
        (None, True, ""),
        (("10.0.0.7", 22), True, ""),
        (("::ffff:10.0.0.7", 22), True, ""),
        (("192.0.2.1", 22), True, "which is in none of firewall_ssh_cidrs"),
        (("192.0.2.1", 22), False, ""),
        (("10.0.0.7", 2022), True, "Fix: firewall_ssh_port: 2022"),
    ],
)
def test_the_present_connection_must_be_admitted(source: tuple[str, int] | None, check: bool, why: str) -> None:
    settings = {"check_source": check, "ssh_cidrs": ["10.0.0.0/8", "fd00::/64"], "ssh_port": 22}
    found = source_problem(settings, source)
    assert why in found if why else found == ""


def test_vrrp_has_no_ports() -> None:
    rule: dict[str, Any] = {"name": "vrrp", "protocol": "vrrp", "sources": ["10.0.0.1", "fd00::1"]}
    wishes = {"firewall_enabled": True, "firewall_ssh_cidrs": ["10.0.0.0/8"]}
    assert firewall_problems({**wishes, "firewall_rules": [rule]}) == []
    assert [(row["protocol"], row["ports"]) for row in firewall_rows([rule])] == [("vrrp", [])] * 2
    (problem,) = firewall_problems({**wishes, "firewall_rules": [{**rule, "ports": ["80"]}]})
    assert "vrrp has no ports" in problem
