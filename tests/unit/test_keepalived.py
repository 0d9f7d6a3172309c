"""Virtual addresses: what is refused, and what the gateways are told."""

from __future__ import annotations

from typing import Any

import pytest

from filter_plugins.keepalived import keepalived_plan, keepalived_problems

ANY = "0.0.0.0"  # noqa: S104 - nothing is bound to it
SETTINGS: dict[str, Any] = {
    "keepalived_virtual_addresses": ["10.20.0.10/24", "fd00:20::10/64"],
    "keepalived_peers": ["10.20.0.11", "10.20.0.12", "10.20.0.13"],
    "keepalived_address": "10.20.0.12",
    "keepalived_router_id": 51,
    "keepalived_check_url": "https://llm.example.org/healthz",
    "keepalived_gateway_listen_addresses": [ANY, "::"],
    "keepalived_gateway_tls_mode": "files",
}


def settings(**change: Any) -> dict[str, Any]:
    return SETTINGS | {f"keepalived_{name}": value for name, value in change.items()}


def test_settings_that_work_are_not_refused() -> None:
    assert keepalived_problems(SETTINGS) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"virtual_addresses": ["10.20.0.10"]},
            "has no prefix length. Fix: that of its network, such as 10.20.0.10/24",
        ),
        ({"virtual_addresses": ["10.20.0.300/24"]}, "10.20.0.300/24 is no address"),
        ({"virtual_addresses": ["10.20.0.11/24"]}, "is a gateway's own address"),
        (
            {"virtual_addresses": ["fd00:20::10/64"]},
            "the gateways speak IPv4 with each other, and none of these is of it",
        ),
        ({"peers": ["10.20.0.12"]}, "1 gateways cannot stand in for each other"),
        ({"peers": ["10.20.0.11", "10.20.0.13"]}, "keepalived_peers: 10.20.0.12 is not among them"),
        ({"peers": ["gw1", "10.20.0.12"]}, "keepalived_peers: gw1 is no address"),
        ({"peers": ["127.0.0.1", "10.20.0.12"]}, "127.0.0.1 is an address that no other gateway can reach"),
        ({"router_id": 0}, "keepalived_router_id: 0 is not between 1 and 255"),
        ({"router_id": 256}, "keepalived_router_id: 256 is not between 1 and 255"),
        ({"check_url": ""}, "keepalived_check_url: empty"),
        ({"gateway_listen_addresses": ["10.20.0.12", "::"]}, "gateway_listen_addresses: lacks 0.0.0.0"),
        ({"gateway_listen_addresses": [ANY]}, "gateway_listen_addresses: lacks ::"),
        ({"gateway_tls_mode": "private_ca"}, "gateway_tls_mode: private_ca makes a CA on each gateway"),
    ],
)
def test_what_cannot_work_is_named_with_its_fix(change: dict[str, Any], why: str) -> None:
    (problem,) = keepalived_problems(settings(**change))
    assert why in problem
    assert "Fix: " in problem


def test_nothing_is_wrong_where_no_address_is_wanted() -> None:
    assert keepalived_problems(settings(virtual_addresses=[], peers=[], router_id=999)) == []


def test_the_first_gateway_is_preferred_and_each_names_the_others() -> None:
    plans = {address: keepalived_plan(settings(address=address)) for address in SETTINGS["keepalived_peers"]}
    assert [plan["priority"] for plan in plans.values()] == [200, 190, 180]
    assert all({*plan["others"], address} == set(plans) for address, plan in plans.items())
    assert all(address not in plan["others"] for address, plan in plans.items())


def test_addresses_of_the_other_version_move_along() -> None:
    plan = keepalived_plan(SETTINGS)
    assert (plan["addresses"], plan["excluded"]) == (["10.20.0.10/24"], ["fd00:20::10/64"])
