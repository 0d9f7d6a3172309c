"""A conversation's turns go to one server, as long as it is there; others come and go without moving them."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.gateway_client import ALICE, CHAT, ask, secret
from tests.support.plays import Play
from tests.support.stub_engines import Engines

PORTS = {8104, 8105, 8106}
MANY = 60


def chat(address: str, number: int, turns: int = 1, key: str = ALICE, path: str = CHAT, **more: Any) -> int:
    """The port of the engine that answers a turn of this conversation."""
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"question {number}"}]
    for turn in range(1, turns):
        messages += [{"role": "assistant", "content": f"answer {turn}"}, {"role": "user", "content": f"more {turn}"}]
    answer = ask(address, path, key=key, model="talk", messages=messages, **more)
    assert answer["status"] == 200
    return int(json.loads(answer["content"])["port"])


def homes(address: str, turns: int = 1) -> list[int]:
    """Where each of many conversations is answered."""
    return [chat(address, number, turns) for number in range(MANY)]


def test_turns_of_a_conversation_meet_their_server(address: str, engines: Engines) -> None:
    """By both paths, whatever else the request says; and all servers have conversations."""
    first = homes(address)
    assert set(first) == PORTS
    assert min(first.count(port) for port in PORTS) >= MANY // 10
    assert homes(address, turns=2) == first
    assert [chat(address, n, 5, path=f"/talk{CHAT}", temperature=n) for n in range(MANY)] == first
    # The same words of another client are another conversation.
    assert [chat(address, n, key=secret("bob")) for n in range(MANY)] != first


def test_prompt_that_grows_meets_its_server(address: str, engines: Engines) -> None:
    found: list[int] = []
    for number in range(20):
        prompt = f"document {number} " + "x" * 2000
        grown = (prompt, prompt + "and more", prompt + "y" * 5000)
        asked = [ask(address, "/v1/completions", model="talk", prompt=text) for text in grown]
        ports = {json.loads(answer["content"])["port"] for answer in asked}
        assert len(ports) == 1
        found += ports
    assert set(found) == PORTS


def test_requests_without_a_beginning_are_spread(address: str, engines: Engines) -> None:
    strange: list[Any] = [None, [], "x", [None], [{"role": 7}]]
    for messages in strange:
        assert ask(address, CHAT, model="talk", messages=messages)["status"] == 200
    for _ in range(40):
        assert ask(address, CHAT, model="talk")["status"] == 200
    assert min(engines.seen(port)["requests"] for port in PORTS) >= 3


def test_killed_servers_conversations_are_taken_over_and_come_back(address: str, engines: Engines) -> None:
    first = homes(address)
    engines.kill(8105)
    then = homes(address, turns=2)
    assert [new for old, new in zip(first, then, strict=True) if old != 8105] == [p for p in first if p != 8105]
    assert {new for old, new in zip(first, then, strict=True) if old == 8105} == PORTS - {8105}
    engines.start(8105)
    deadline = time.monotonic() + 60
    while homes(address, turns=3) != first:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_further_server_moves_only_its_share(address: str, engines: Engines, play: Play) -> None:
    def converged(*ports: int, drained: tuple[int, ...] = ()) -> None:
        served: dict[str, Any] = {
            "name": "talk",
            "balance": "conversation",
            "servers": [f"127.0.0.1:{port}" for port in ports],
            "drained": [f"127.0.0.1:{port}" for port in drained],
            "routes": [{"path": path, "methods": ["POST"], "stream": True} for path in (CHAT, "/v1/completions")],
        }
        plain = {**served, "name": "small", "servers": ["127.0.0.1:8101"], "drained": [], "balance": "least_conn"}
        assert play(gateway_models=[plain, served]).status == 0

    first = homes(address)
    try:
        converged(8104, 8105, 8106, 8107)
        then = homes(address)
        moved = [(old, new) for old, new in zip(first, then, strict=True) if old != new]
        assert {new for _, new in moved} == {8107}
        assert 1 <= len(moved) <= MANY // 2
        converged(8104, 8105, 8106, drained=(8107,))
        assert homes(address) == first
    finally:
        assert play().status == 0
