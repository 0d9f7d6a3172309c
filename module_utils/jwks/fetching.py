# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Asking issuers of tokens for their public keys. Standard library only, Python 3.9+.

Runs on the gateway from plain copies of this code, by a timer: `python3 -m ansible.module_utils.jwks.fetching`. Keys
are judged before they are used; where an issuer does not answer, or answers with
anything else, the last good ones stay.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from ansible.module_utils.run_lock import Busy, only_run

from .keys import LARGEST, Unusable, parse, usable

KEYS = "keys.json"
STATUS = "status.json"
#: Seconds that one answer may take, from the first packet to the last byte.
PATIENCE = 20.0
STEP = 5.0
Row = dict[str, Any]


class Failed(Exception):
    """An issuer's keys were not had; the text says why."""


def fetch(url: str, ca: Optional[str]) -> bytes:
    """The body of an answer 200, at most LARGEST bytes and one more. No redirect is followed. Raises Failed."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Failed(f"{url} is no https address")
    end = time.monotonic() + PATIENCE
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=STEP, context=context)
        try:
            connection.request("GET", path, headers={"Accept": "application/json", "User-Agent": "redoubt"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise Failed(f"{url} answers {answer.status}")
            body = b""
            while len(body) <= LARGEST:
                piece = answer.read1(LARGEST + 1 - len(body))
                if not piece:
                    return body
                body += piece
                if time.monotonic() > end:
                    raise Failed(f"{url} has not sent all within {PATIENCE:.0f} s")
            return body
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"{url}: {error or type(error).__name__}") from error


def judged(body: bytes, algorithms: list[str]) -> list[Row]:
    """The keys of a document that are for these algorithms. Raises Unusable."""
    found = [key for key in usable(parse(body))[0] if key["alg"] in algorithms]
    if not found:
        raise Unusable(f"none of its keys is for {' or '.join(algorithms)}")
    return found


def _read(path: Path, empty: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return empty


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def renew(sources: list[Row], state: Path, now: float) -> dict[str, Row]:
    """Ask every issuer, and write what is good now: {name: {fetched, keys, problem}}. Raises OSError."""
    # Keys of an issuer whose address has changed are those of somebody else.
    before = {(row["name"], row["url"]): row for row in _read(state / KEYS, [])}
    rows, status = [], {}
    for source in sources:
        row = before.get((source["name"], source["url"]), {"fetched": 0, "keys": []})
        problem = ""
        try:
            keys = judged(fetch(source["url"], source.get("ca")), source["algorithms"])
            row = {"fetched": int(now), "keys": keys}
        except (Failed, Unusable) as error:
            problem = f"{source['name']}: {error}" if isinstance(error, Failed) else f"{source['url']}: {error}"
        row = {"name": source["name"], "url": source["url"], "fetched": row["fetched"], "keys": row["keys"]}
        rows.append({**row, "keys": [key for key in row["keys"] if key["alg"] in source["algorithms"]]})
        status[source["name"]] = {"fetched": row["fetched"], "keys": len(rows[-1]["keys"]), "problem": problem}
    _write(state / KEYS, json.dumps(rows, indent=1) + "\n")
    return status


def metrics_text(run: float, status: dict[str, Row]) -> str:
    """The figures in Prometheus' text format."""
    told = {
        "fetched_timestamp_seconds": ("When an issuer's keys were last had (0: never)", "fetched"),
        "keys": ("Keys of an issuer that are used", "keys"),
    }
    metric = "redoubt_gateway_jwks_run_timestamp_seconds"
    lines = [f"# HELP {metric} When issuers were last asked", f"# TYPE {metric} gauge", f"{metric} {int(run)}"]
    for name, (text, field) in told.items():
        metric = f"redoubt_gateway_jwks_{name}"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} gauge"]
        lines += [f'{metric}{{issuer="{issuer}"}} {row[field]}' for issuer, row in status.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Optional[list[str]] = None) -> int:
    """Entry point; 1 when an issuer's keys were not had."""
    parser = argparse.ArgumentParser(prog="fetching")
    parser.add_argument("--sources", type=Path, required=True, help="JSON list of {name, url, algorithms, ca}")
    parser.add_argument("--state-dir", type=Path, required=True, help="where the keys are kept")
    parser.add_argument("--metrics", type=Path, help="*.prom file in node exporter's folder")
    options = parser.parse_args(arguments)
    now = time.time()
    try:
        with only_run(options.state_dir / "lock", "the keys of issuers", PATIENCE):
            status = renew(json.loads(options.sources.read_text(encoding="utf-8")), options.state_dir, now)
            _write(options.state_dir / STATUS, json.dumps({"run": int(now), "issuers": status}, indent=1) + "\n")
            if options.metrics and options.metrics.parent.is_dir():
                _write(options.metrics, metrics_text(now, status))
    except (Busy, OSError, ValueError) as error:
        print(f"<3>keys not fetched: {error}")  # `<3>` makes it an error in the journal
        return 1
    problems = [row["problem"] for row in status.values() if row["problem"]]
    for problem in problems:
        print(f"<3>{problem}; the last good keys stay")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
