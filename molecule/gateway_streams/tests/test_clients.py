"""Who leaves ends the work for him, and nothing that an engine has read is asked again."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE, CHAT, ask, code, secret, stream_open
from tests.support.raw_http import context, written
from tests.support.stub_engines import Engines

LOG = "/var/log/nginx/gateway-audit.jsonl"


def test_who_leaves_a_stream_ends_it_in_the_engine(host: Host, address: str, engines: Engines) -> None:
    """Not at its end: it would go on for ever. The key's only place is free again as well."""
    held = stream_open(address, secret("single"), model="small", end="long", pause=0.05)
    assert ask(address, CHAT, key=secret("single"), model="small")["status"] == 429
    threading.Event().wait(0.5)
    before = engines.seen(8101)["requests"]
    held.close()
    found = engines.until(8101, running=0, gone=1)
    assert before == found["requests"] == 1
    # Ten events of 0.05 s have passed at least; reading what an engine has seen takes a while too.
    assert 10 <= found["chunks"] <= 200
    assert ask(address, CHAT, key=secret("single"), model="small")["status"] == 200
    ended = [json.loads(line)["ended"] for line in host.check_output(f"tail -n 3 {LOG}").splitlines()]
    assert ended.count("left") == 1


def test_who_leaves_before_the_first_byte_ends_it_too(address: str, engines: Engines) -> None:
    """A long prefill: nothing has come yet."""
    plain = socket.create_connection((address, 443), timeout=30)
    opened = context().wrap_socket(plain, server_hostname="redoubt.lab")
    body = json.dumps({"model": "small", "stream": True, "prefill": 3600})
    opened.sendall(written(CHAT, "POST", key=ALICE, body=body).encode())
    engines.until(8101, running=1)
    opened.close()
    assert engines.until(8101, running=0)["gone"] == 1


def test_silent_connections_are_kept_awake(host: Host, address: str, engines: Engines) -> None:
    """By TCP, in both directions: the gateway asks whether the client is there, and whether the engine is."""
    held = stream_open(address, ALICE, model="small", end="long", pause=60)
    for port in ("sport = :443", "dport = :8101"):
        assert "timer:(keepalive" in host.check_output("ss -Htno state established %s", port)
    held.close()


@pytest.mark.parametrize("stream", [True, False])
def test_request_that_an_engine_has_read_is_asked_no_other(address: str, engines: Engines, stream: bool) -> None:
    """Both engines close the connection without a byte; it may have been the request that killed the first."""
    for number in range(1, 5):
        answer = ask(address, CHAT, model="pair", end="nothing", stream=stream)
        assert (answer["status"], code(answer)) == (502, "engine_unavailable")
        assert sum(engines.seen(port)["requests"] for port in (8102, 8103)) == number


def test_request_that_reached_no_engine_is_asked_another(address: str, engines: Engines) -> None:
    engines.kill(8102)
    assert [ask(address, CHAT, model="pair")["status"] for _ in range(10)] == [200] * 10
    assert engines.seen(8103)["requests"] == 10
