"""Subnets and addresses of the lab's networks."""

from __future__ import annotations

from ipaddress import IPv4Network as Net

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import net
from lab.errors import LabError

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t00005B0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
nets = st.builds(
    lambda number, length: Net((number, length), strict=False),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(9, 30),
)


def test_routes_are_read_without_the_default_route() -> None:
    assert net.routes(ROUTES) == [Net("192.0.2.0/24"), Net("10.91.0.0/16")]


def test_a_vpn_on_the_usual_range_moves_the_lab_elsewhere() -> None:
    chosen = net.choose_subnet(net.routes(ROUTES), net.candidates())
    assert chosen == Net("10.217.0.0/24")


@given(st.lists(nets, max_size=12))
def test_the_choice_never_overlaps(taken: list[Net]) -> None:
    try:
        chosen = net.choose_subnet(taken, net.candidates())
    except LabError:
        assert all(any(offer.overlaps(one) for one in taken) for offer in net.candidates())
    else:
        assert not any(chosen.overlaps(one) for one in taken)


def test_nothing_free_is_said() -> None:
    with pytest.raises(LabError, match="no free subnet"):
        net.choose_subnet([Net("10.0.0.0/8")], net.candidates())


def test_addresses_are_given_lowest_first_and_never_twice() -> None:
    subnet = Net("10.91.0.0/24")
    assert net.choose_address(subnet, []) == "10.91.0.10"
    assert net.choose_address(subnet, ["10.91.0.10", "10.91.0.12"]) == "10.91.0.11"
    everything = [str(address) for address in subnet.hosts()]
    with pytest.raises(LabError, match="down NAME"):
        net.choose_address(subnet, everything)
