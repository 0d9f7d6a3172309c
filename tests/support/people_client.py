"""A person's browser before the gateway of the lab, as far as pages with a login need one."""

from __future__ import annotations

import base64
import json
from typing import Any

from testinfra.host import Host

from tests.support.raw_http import context, exchange, written

LOG = "/var/log/nginx/gateway-audit.jsonl"
ANNA, BEN = ("anna", "correct horse"), ("ben", "battery staple")


def basic(who: tuple[str, str]) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(":".join(who).encode()).decode()}


def look(
    address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: str = ""
) -> dict[str, Any]:
    return exchange(address, 443, written(path, method, headers=headers, body=body), context(), "redoubt.lab")


def seen(answer: dict[str, Any]) -> dict[str, Any]:
    """The request as the page got it; fails when no page answered."""
    assert answer["status"] == 200, answer["content"]
    found: dict[str, Any] = json.loads(answer["content"].splitlines()[0])
    return found


def client(host: Host, answer: dict[str, Any]) -> str:
    wanted = answer["headers"]["x-request-id"]
    for _ in range(50):
        for line in reversed(host.file(LOG).content_string.splitlines()):
            entry = json.loads(line)
            if entry["request_id"] == wanted:
                return str(entry["client"])
        host.check_output("sleep 0.1")
    raise AssertionError("the log lacks it")
