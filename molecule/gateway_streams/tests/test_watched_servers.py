"""The gateway asks its servers: one that hangs gets no requests, and neither side undoes what the other did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE, CHAT, ask, rest, stream_open
from tests.support.plays import Play
from tests.support.stub_engines import WAIT, Engines

WANTED: dict[str, Any] = {"gateway_health_checks": True, "gateway_health_seconds": 5, "gateway_health_timeout": 1}
POOLS = "/etc/redoubt/gateway/pools"
STATE = "/var/lib/redoubt/gateway_health/state.json"
TIMER = "redoubt-gateway-health.timer"


@pytest.fixture(scope="module")
def watching() -> dict[str, Any]:
    return {**WANTED, "gateway_health_fails": 2, "gateway_health_passes": 2}


@pytest.fixture
def watched(engines: Engines, play: Play, watching: dict[str, Any]) -> Iterator[Engines]:
    """A gateway that asks, and engines that all answer."""
    assert play(**watching).status == 0
    yield engines
    for port in engines.ports:
        engines.host.run(f"systemctl kill --signal CONT stub-{port}")
    assert play().status == 0


def until(host: Host, question: str) -> None:
    """Wait until a command on the gateway succeeds."""
    host.check_output(WAIT, f"{question} && exit 0; sleep 0.4")


def test_server_that_hangs_is_out_until_it_answers(
    host: Host, address: str, watched: Engines, play: Play, watching: dict[str, Any]
) -> None:
    held = stream_open(address, ALICE, model="small", events=400, pause=0.05)
    host.check_output("systemctl kill --signal STOP stub-8102")  # its port still takes connections
    until(host, f"grep -q '8102 down; # out' {POOLS}/redoubt_1.conf")
    until(host, "pgrep -f 'nginx: worker process is shutting dow[n]'")  # the one with the stream
    for _ in range(10):
        answer = ask(address, CHAT, model="pair")
        assert (answer["status"], json.loads(answer["content"])["port"]) == (200, 8103)
    # The role's own run leaves it as it is, and has nothing to do.
    assert play(**watching).changed == 0
    other: dict[str, Any] = {**watching, "gateway_health_passes": 3}
    run = play(**other)
    assert (run.status, run.changed) == (0, 1)
    assert "8102 down; # out" in host.file(f"{POOLS}/redoubt_1.conf").content_string
    host.check_output("systemctl kill --signal CONT stub-8102")
    until(host, f"! grep -q down {POOLS}/redoubt_1.conf")
    assert watched.until(8102, running=0)
    # Nothing was cut by all that.
    assert "[DONE]" in rest(held)
    told = host.check_output("journalctl --quiet --unit redoubt-gateway-health --output cat")
    assert "127.0.0.1:8102 of redoubt_1 is out: " in told
    assert "127.0.0.1:8102 of redoubt_1 is back" in told
    assert "Started" not in told


def test_last_server_stays(host: Host, watched: Engines) -> None:
    watched.kill(8101)
    until(host, f"""grep -A 6 '"127.0.0.1:8101"' {STATE} | grep -q '"kept": true'""")
    assert "server 127.0.0.1:8101 max_fails" in host.file(f"{POOLS}/redoubt_0.conf").content_string


def test_drained_server_is_not_asked_and_not_brought_back(
    host: Host, address: str, watched: Engines, play: Play, watching: dict[str, Any]
) -> None:
    """As `drain` and `return` run the role."""
    routes = [{"path": CHAT, "methods": ["POST"], "stream": True}]
    pair = {"name": "pair", "servers": ["127.0.0.1:8103"], "drained": ["127.0.0.1:8102"], "routes": routes}
    assert play(**watching, gateway_models=[pair]).status == 0
    until(host, f"[ -f {STATE} ]")
    rounds = f'python3 -c \'import json; print(json.load(open("{STATE}"))["run"])\''
    before = host.check_output(rounds)
    until(host, f'[ "$({rounds})" != {before} ]')
    assert "server 127.0.0.1:8102 down; # drained" in host.file(f"{POOLS}/redoubt_0.conf").content_string
    assert ask(address, CHAT, model="pair")["status"] == 200
    assert "8102" not in host.file(STATE).content_string
    returned = {**pair, "servers": ["127.0.0.1:8103", "127.0.0.1:8102"], "drained": []}
    assert play(**watching, gateway_models=[returned]).status == 0
    assert "down" not in host.file(f"{POOLS}/redoubt_0.conf").content_string


def test_nothing_is_left_when_it_is_turned_off(host: Host, address: str, engines: Engines, play: Play) -> None:
    assert play(check=True, **WANTED).status == 0
    assert not host.file("/etc/redoubt/gateway/pools.json").exists
    assert play(**WANTED).status == 0
    assert host.service(TIMER).is_running
    assert host.service(TIMER).is_enabled
    assert play().status == 0
    assert host.run(f"systemctl is-enabled {TIMER}").stdout.strip() == "not-found"
    assert "include ../redoubt/gateway/pools" not in host.file("/etc/nginx/nginx.conf").content_string
    assert host.run("systemctl list-units --all --no-legend --plain 'redoubt-gateway-health*'").stdout == ""
    assert not host.file(STATE).exists
    assert ask(address, CHAT, model="pair")["status"] == 200
    assert play().changed == 0
