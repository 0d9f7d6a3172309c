# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions to a running service, each answered with None (good) or one line that says what is wrong.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit


def run(command: list[str], timeout: float) -> tuple[int, str]:
    """Run a command without a shell; returns (exit status, last 4,000 characters of its output)."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{command[0]}: no such program"
    except subprocess.TimeoutExpired:
        return 124, f"no end after {timeout:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace").strip()[-4000:]


def unit_state(unit: str) -> dict[str, str]:
    """What systemd says of a unit: ActiveState, SubState, NRestarts, Result, LoadState."""
    _, text = run(["systemctl", "show", "-p", "ActiveState,SubState,NRestarts,Result,LoadState", unit], 20)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _unit(probe: dict[str, Any], settle: float) -> str | None:
    unit = probe["unit"]
    before = unit_state(unit)
    if before.get("ActiveState") != "active":
        return _unit_report(unit, before)
    if settle:
        time.sleep(settle)
        after = unit_state(unit)
        restarted = after.get("NRestarts") != before.get("NRestarts")
        if restarted or after.get("ActiveState") != "active":
            return _unit_report(unit, after) + " (it does not stay up)"
    return None


def _unit_report(unit: str, state: dict[str, str]) -> str:
    _, journal = run(["journalctl", "-u", unit, "-n", "8", "--no-pager", "-o", "cat"], 20)
    return (
        f"unit {unit} is {state.get('ActiveState', 'unknown')}/{state.get('SubState', '?')}"
        f" (result {state.get('Result', '?')}); its last words: {journal[-1200:] or 'none'}"
    )


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as a pair. Raises ValueError when it is neither."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def _tcp(probe: dict[str, Any]) -> str | None:
    try:
        with socket.create_connection(split_address(probe["tcp"]), timeout=5):
            return None
    except OSError as error:
        return f"nothing answers on {probe['tcp']}: {error}"


def http_request(
    url: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    ca: str | None = None,
    server_name: str | None = None,
    verify: bool = True,
    connect_to: str | None = None,
    timeout: float = 10,
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP(S) request without redirects or proxies.

    `server_name` is sent as SNI and Host (default: the URL's host), `connect_to` is the address really used.
    Returns (status, headers in lower case, body). Raises OSError or http.client.HTTPException.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    plain = socket.create_connection((connect_to or host, port), timeout=timeout)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    connection.sock = plain
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection.sock = context.wrap_socket(plain, server_hostname=server_name or host)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"Connection": "close", **(headers or {})}
    if server_name:
        sent.setdefault("Host", server_name)
    try:
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def _http(probe: dict[str, Any]) -> str | None:
    wanted = probe.get("status") or [200]
    try:
        status, _, body = http_request(
            probe["http"],
            headers=probe.get("headers"),
            ca=probe.get("ca"),
            server_name=probe.get("server_name"),
            verify=probe.get("verify", True),
            connect_to=probe.get("connect_to"),
            timeout=5,
        )
    except (OSError, http.client.HTTPException) as error:
        return f"{probe['http']} does not answer: {error}"
    if status not in wanted:
        text = body[:300].decode(errors="replace").strip()
        return f"{probe['http']} answers {status} instead of {wanted}: {text}"
    return None


def _command(probe: dict[str, Any]) -> str | None:
    status, output = run(probe["command"], 60)
    return None if status == 0 else f"{' '.join(probe['command'])} ended with {status}: {output[-1200:]}"


def ask(probe: dict[str, Any], settle: float = 0) -> str | None:
    """Ask one probe once. A probe has exactly one of the keys unit, tcp, http, command.

    Raises ValueError for a probe of no known kind.
    """
    if probe.get("unit"):
        return _unit(probe, settle)
    if probe.get("tcp"):
        return _tcp(probe)
    if probe.get("http"):
        return _http(probe)
    if probe.get("command"):
        return _command(probe)
    raise ValueError(f"a probe needs unit, tcp, http or command: {sorted(probe)}")


def ask_until(probes: list[dict[str, Any]], timeout: float, settle: float) -> str | None:
    """Ask all probes again and again until each is good, at most `timeout` seconds in all.

    Returns None, or what the first still failing probe says. Units are watched for `settle` seconds after
    everything else is good, so that a crash loop is not taken for a start.
    """
    deadline = time.monotonic() + timeout
    for probe in sorted(probes, key=lambda item: bool(item.get("unit"))):
        while True:
            problem = ask(probe)
            if problem is None:
                break
            if time.monotonic() >= deadline:
                return problem
            time.sleep(0.3)
    for probe in probes:
        if probe.get("unit"):
            problem = ask(probe, settle)
            if problem:
                return problem
    return None
