"""No way around the gateway: what must not reach the engine is sent raw, and the engine's count stays what it was."""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support.bypass_corpus import ROUTES, attempts
from tests.support.gateway_client import ALICE, ask, count
from tests.support.raw_http import context, exchange

# Strictly, as a collector of logs would.
READ = """
import json, sys
rows = [json.loads(line.decode("utf-8", "strict")) for line in sys.stdin.buffer]
print(json.dumps([[row["client"], row["status"], row["path"].startswith("/")] for row in rows]))
"""
WORKERS = "ps -o pid= --ppid $(cat /run/nginx.pid) | sort"


def test_none_of_them_reaches_an_engine(host: Host, address: str) -> None:
    """Each is refused in OpenAI's words, or the connection is closed without any; no worker dies of it."""
    before, workers = count(host), host.check_output(WORKERS)
    wrong = []
    for attempt in attempts(ALICE):
        answer = exchange(address, 443, attempt.request, context(), "redoubt.lab")
        if answer["status"] and answer["status"] not in (*range(400, 500), 501, 505):
            wrong.append(f"{answer['status']}: {attempt.name}")
        elif answer["status"] and not attempt.name.startswith(("method: HEAD", "host: ")):  # no body; no host, no words
            assert answer["content"].startswith('{"error": '), attempt.name
    assert wrong == []
    assert count(host) == before
    assert host.check_output(WORKERS) == workers


def test_what_clients_wrote_spoils_no_line_of_the_log(host: Host, address: str) -> None:
    ask(address, "/%c0%af%ff\xc0")
    ask(address, "/\u00e9%22,%22client%22:%22bob%22,%0a%7b")
    tail = host.check_output("tail -n 2 /var/log/nginx/gateway-audit.jsonl | python3 -I -c %s", READ)
    assert json.loads(tail) == [["", 404, True], ["", 404, True]]


def test_the_count_would_rise(host: Host, address: str) -> None:
    before = count(host)
    for route in ROUTES:
        assert ask(address, f"/{route}", model="small")["status"] == 200
    assert count(host) == before + len(ROUTES)


def test_there_are_enough_of_them() -> None:
    assert len({attempt.request for attempt in attempts(ALICE)}) >= 300
