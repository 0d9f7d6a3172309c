"""Half of the keys get another revision: each key always the same, and the proven one when the other is gone."""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support.gateway_client import CHAT, ask, secret
from tests.support.stub_engines import Engines

LOG = "/var/log/nginx/gateway-audit.jsonl"
NAMES = [f"c{number}" for number in range(8)]
PROVEN, CANARY = 8101, 8107


def revisions(address: str, path: str = CHAT) -> list[int]:
    """The port of the engine that answers each key."""
    answers = [ask(address, path, key=secret(name), model="turning") for name in NAMES]
    assert {answer["status"] for answer in answers} == {200}
    return [int(json.loads(answer["content"])["port"]) for answer in answers]


def test_key_keeps_its_revision_and_the_log_tells_which(host: Host, address: str, engines: Engines) -> None:
    first = revisions(address)
    assert set(first) == {PROVEN, CANARY}
    assert revisions(address) == first
    assert revisions(address, f"/turning{CHAT}") == first
    lines = host.check_output(f"sleep 0.5; tail -n 8 {LOG}").splitlines()
    told = {line["client"]: line["upstream"] for line in map(json.loads, lines)}
    assert [told[name] for name in NAMES] == [f"127.0.0.1:{port}" for port in first]


def test_keys_of_a_lost_canary_get_the_proven_revision(address: str, engines: Engines) -> None:
    engines.kill(CANARY)
    assert set(revisions(address)) == {PROVEN}
