"""One gateway holds the address; it moves when Nginx, keepalived or the host fails, and stays there."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from lab import hosts
from tests.support.plays import Play

testinfra_hosts = ["ansible://molecule-keepalived-1"]
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = FOLDER / "inventory"
NAMES = ("molecule-keepalived-1", "molecule-keepalived-2")
FIGURES = "/var/lib/redoubt/textfile/redoubt_gateway_address.prom"
#: Longer than any move takes; no test measures time.
PATIENCE = 60


@pytest.fixture(scope="module")
def gateways() -> dict[str, Host]:
    return {name: testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY)) for name in NAMES}


@pytest.fixture(scope="module")
def virtual() -> str:
    document = json.loads((INVENTORY / "lab.json").read_text())
    own = str(document["all"]["hosts"][NAMES[0]]["ansible_host"])
    return f"{own.rpartition('.')[0]}.250"


def holders(gateways: dict[str, Host], virtual: str, *asleep: str) -> list[str]:
    awake = {name: host for name, host in gateways.items() if name not in asleep}
    return [name for name, host in awake.items() if f" {virtual}/" in host.check_output("ip -oneline -4 address")]


def answers(virtual: str) -> bool:
    """Whether a new client gets an answer at the address, with the certificate that it trusts."""
    context = ssl.create_default_context(cafile=str(FOLDER / "server.crt"))
    try:
        raw = socket.create_connection((virtual, 443), 2)
        with raw, context.wrap_socket(raw, server_hostname="redoubt.lab") as stream:
            stream.sendall(b"GET /v1/models HTTP/1.1\r\nHost: redoubt.lab\r\nConnection: close\r\n\r\n")
            answer = http.client.HTTPResponse(stream)
            answer.begin()
            return answer.status == http.client.UNAUTHORIZED
    except OSError:
        return False


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


@pytest.fixture(autouse=True)
def one_holder(gateways: dict[str, Host], virtual: str) -> Iterator[None]:
    assert until(lambda: len(holders(gateways, virtual)) == 1 and answers(virtual))
    yield


def test_who_holds_it_says_so_for_monitoring(gateways: dict[str, Host], virtual: str) -> None:
    (holder,) = holders(gateways, virtual)
    wanted = {name: f"redoubt_gateway_address_held {int(name == holder)}" for name in gateways}
    assert until(
        lambda: {name: host.run("tail -n 1 %s", FIGURES).stdout.strip() for name, host in gateways.items()} == wanted
    )


def test_second_run_changes_nothing_and_moves_nothing(gateways: dict[str, Host], virtual: str, play: Play) -> None:
    before = holders(gateways, virtual)
    run = play()
    assert (run.status, run.changed) == (0, 0)
    assert holders(gateways, virtual) == before


@pytest.mark.parametrize(
    ("fail", "mend"),
    [
        ("systemctl stop nginx", "systemctl start nginx"),
        # Nginx runs and takes connections, but nobody answers.
        ("pkill -STOP nginx", "pkill -CONT nginx"),
        ("systemctl stop keepalived", "systemctl start keepalived"),
    ],
)
def test_the_address_leaves_a_gateway_that_fails(gateways: dict[str, Host], virtual: str, fail: str, mend: str) -> None:
    (holder,) = holders(gateways, virtual)
    (other,) = {*gateways} - {holder}
    gateways[holder].check_output(fail)
    try:
        assert until(lambda: holders(gateways, virtual) == [other])
        assert until(lambda: answers(virtual))
    finally:
        gateways[holder].check_output(mend)
    well = "/usr/local/lib/redoubt/keepalived_check && systemctl is-active keepalived"
    assert until(lambda: gateways[holder].run(well).rc == 0)
    time.sleep(8)  # more than it would take to take the address back
    assert holders(gateways, virtual) == [other]


def test_a_host_that_dies_is_stood_in_for_and_gives_way_when_it_is_back(
    gateways: dict[str, Host], virtual: str
) -> None:
    (holder,) = holders(gateways, virtual)
    (other,) = {*gateways} - {holder}
    hosts.pause(holder)
    try:
        assert until(lambda: holders(gateways, virtual, holder) == [other])
        assert until(lambda: answers(virtual))
    finally:
        hosts.unpause(holder)
    assert until(lambda: len(holders(gateways, virtual)) == 1)
    assert until(lambda: answers(virtual))


def test_without_vrrp_between_them_both_hold_it_and_say_so(gateways: dict[str, Host], virtual: str) -> None:
    """What the alert GatewayAddressHeldTwice is for."""
    for host in gateways.values():
        host.check_output("nft insert rule inet redoubt input meta l4proto vrrp drop")
    held = f"grep -c '^redoubt_gateway_address_held 1$' {FIGURES}"
    try:
        assert until(lambda: len(holders(gateways, virtual)) == 2)
        assert until(lambda: all(host.run(held).rc == 0 for host in gateways.values()))
    finally:
        for host in gateways.values():
            host.check_output("systemctl reload redoubt-firewall")
    assert until(lambda: len(holders(gateways, virtual)) == 1)


def test_what_cannot_work_is_refused_and_changes_nothing(gateways: dict[str, Host], virtual: str, play: Play) -> None:
    before = holders(gateways, virtual)
    run = play(keepalived_peers=["192.0.2.1"], keepalived_router_id=300)
    assert run.status != 0
    assert "is not among them" in run.words
    assert "keepalived_router_id: 300 is not between 1 and 255" in run.words
    run = play(keepalived_address="192.0.2.1", keepalived_peers=["192.0.2.1", "192.0.2.2"])
    assert "no network card of molecule-keepalived-1 has 192.0.2.1" in run.words
    assert holders(gateways, virtual) == before


def test_it_is_taken_away_without_a_trace(gateways: dict[str, Host], virtual: str, play: Play) -> None:
    assert play(keepalived_virtual_addresses=[]).changed == len(gateways)
    assert holders(gateways, virtual) == []
    for host in gateways.values():
        assert not host.service("keepalived").is_running
        assert not host.file("/etc/keepalived/keepalived.conf").exists
        assert not host.file(FIGURES).exists
    assert play(keepalived_virtual_addresses=[]).changed == 0
    assert play().status == 0
