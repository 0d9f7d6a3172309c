"""Asking Prometheus and Alertmanager on a lab host, where they listen on loopback only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from testinfra.host import Host

PROMETHEUS = "http://127.0.0.1:9090"
ALERTMANAGER = "http://127.0.0.1:9093"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


def fetch(host: Host, url: str) -> str:
    """The body of a page that the host can see. Fails the test when there is none."""
    return str(host.check_output("python3 -c %s %s", FETCH, url))


def targets(host: Host) -> dict[tuple[str, str], str]:
    """State (up, down, unknown) of each target, by job and instance."""
    found = json.loads(fetch(host, f"{PROMETHEUS}/api/v1/targets?state=active"))["data"]["activeTargets"]
    return {(target["labels"]["job"], target["labels"]["instance"]): target["health"] for target in found}


def query(host: Host, expression: str) -> dict[str, float]:
    """The value of each series that the expression gives, by its `instance` label ("" without one)."""
    found = json.loads(fetch(host, f"{PROMETHEUS}/api/v1/query?query={quote(expression)}"))["data"]["result"]
    return {series["metric"].get("instance", ""): float(series["value"][1]) for series in found}


def alerts(host: Host) -> dict[str, dict[str, Any]]:
    """The alerts that Alertmanager holds, by name (one of each)."""
    return {alert["labels"]["alertname"]: alert for alert in json.loads(fetch(host, f"{ALERTMANAGER}/api/v2/alerts"))}


def loaded_config(host: Host) -> str:
    """The configuration that Prometheus really runs."""
    return str(json.loads(fetch(host, f"{PROMETHEUS}/api/v1/status/config"))["data"]["yaml"])


def until(what: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether `what` becomes true within the time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
