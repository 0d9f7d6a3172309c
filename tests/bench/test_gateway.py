"""What the gateway costs: the same requests direct to the engine and through it, in turn, on one host."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.bench.results import record
from tests.support.site import MODEL, SERVER_NAME, Site

pytestmark = pytest.mark.slow
ROUNDS = 3


def measure(site: Site, arguments: str, key: str) -> dict[str, Any]:
    """Run the client once on the host."""
    script = Path(__file__).with_name("client.py").read_text()
    site.on(site.main, f"cat > /tmp/client.py <<'PY'\n{script}\nPY")
    text = site.on(site.main, f"python3 /tmp/client.py {arguments} <<'KEY'\n{key}\nKEY", timeout=300)
    document: dict[str, Any] = json.loads(text)
    return document


def test_gateway_against_direct(bench_site: Site) -> None:
    site = bench_site
    site.on(site.main, f"cat > /tmp/ca.crt <<'CA'\n{site.ca_file.read_text()}\nCA")
    through = f"https://{SERVER_NAME}:443 {MODEL} --ca /tmp/ca.crt --name {SERVER_NAME} --address 127.0.0.1"
    ways = {"direct": (f"http://127.0.0.1:8101 {MODEL}", ""), "gateway": (through, site.key)}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (arguments, key) in ways.items():
            rows[name].append(measure(site, arguments, key))
    summary = {
        name: {
            "requests_per_second": round(statistics.median(r["requests_per_second"] for r in found), 1),
            "first_token_ms_p50": round(statistics.median([t for r in found for t in r["first_token_ms"]]), 2),
            "gap_ms_p50": round(statistics.median([g for r in found for g in r["gap_ms"]]), 2),
        }
        for name, found in rows.items()
    }
    summary["ratio"] = {key: round(value / summary["direct"][key], 3) for key, value in summary["gateway"].items()}
    record("gateway", summary)
    assert all(r["gap_ms"] for found in rows.values() for r in found)
