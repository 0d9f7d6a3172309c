"""No way around the gateway: what must not reach the engine is sent raw, and the engine's count stays what it was."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.bypass_corpus import ROUTES, attempts
from tests.support.gateway_client import ALICE, ask, count
from tests.support.raw_http import context, exchange

WORKERS = "ps -o pid= --ppid $(cat /run/nginx.pid) | sort"


def test_none_of_them_reaches_an_engine(host: Host, address: str) -> None:
    """Asked one by one, so that a count that rises has a name; none makes the gateway fail either."""
    before, workers = count(host), host.check_output(WORKERS)
    wrong = []
    for attempt in attempts(ALICE):
        status = exchange(address, 443, attempt.request, context(), "redoubt.lab")["status"]
        # 0 is a connection that was closed without a word; 308 and 444 are not for TLS.
        if status != 0 and not 400 <= status < 500:
            wrong.append(f"{status}: {attempt.name}")
    assert wrong == []
    assert count(host) == before
    assert host.check_output(WORKERS) == workers


def test_the_count_would_rise(host: Host, address: str) -> None:
    before = count(host)
    for route in ROUTES:
        assert ask(address, f"/{route}", model="small")["status"] == 200
    assert count(host) == before + len(ROUTES)


def test_there_are_enough_of_them() -> None:
    assert len({attempt.request for attempt in attempts(ALICE)}) >= 300
