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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ContainerState:
    """What Docker says of one container; `newest_image` is what its image's name stands for now."""

    name: str
    status: str
    restarts: str = ""
    started: str = ""
    image: str = ""
    newest_image: str = ""

    def problem(self, before: ContainerState | None = None) -> str | None:
        """What is wrong, compared with an earlier look if there was one; None when it runs well."""
        if self.status != "running":
            return f"container {self.name} is {self.status}"
        if self.image != self.newest_image:
            return f"container {self.name} runs {self.image}, but its image's name now means {self.newest_image}"
        if before and (before.restarts, before.started) != (self.restarts, self.started):
            return f"container {self.name} restarted {self.restarts} times, it does not stay up"
        return None


def container_states(names: list[str]) -> list[ContainerState]:
    """Look at the named containers with one call (and one more for their images)."""
    form = "{{.Name}} {{.State.Status}} {{.RestartCount}} {{.State.StartedAt}} {{.Image}} {{.Config.Image}}"
    _, text = run(["docker", "container", "inspect", "--format", form, *names], 20)
    rows = {row[0].lstrip("/"): row[1:] for row in map(str.split, text.splitlines()) if len(row) == 6}
    newest = {image: _image_id(image) for image in sorted({row[4] for row in rows.values()})}
    states = []
    for name in names:
        status, restarts, started, image, image_name = rows.get(name, ["missing", "", "", "", ""])
        states.append(ContainerState(name, status, restarts, started, image, newest.get(image_name, "")))
    return states


def _image_id(name: str) -> str:
    status, text = run(["docker", "image", "inspect", "--format", "{{.Id}}", name], 20)
    return text if status == 0 else "no image"


def _containers(probe: dict[str, Any], settle: float) -> str | None:
    names = probe["containers"]
    before = container_states(names)
    problems = [(state.name, state.problem()) for state in before]
    if settle and not any(problem for _, problem in problems):
        time.sleep(settle)
        earlier = {state.name: state for state in before}
        problems = [(state.name, state.problem(earlier[state.name])) for state in container_states(names)]
    return next((f"{problem}; {_last_words(name)}" for name, problem in problems if problem), None)


def _last_words(container: str) -> str:
    _, log = run(["docker", "logs", "--tail", "8", container], 20)
    return f"its last words: {log[-1200:] or 'none'}"


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
    """Ask one probe once. A probe has exactly one of the keys unit, containers, tcp, http, command.

    Raises ValueError for a probe of no known kind.
    """
    if probe.get("unit"):
        return _unit(probe, settle)
    if probe.get("containers"):
        return _containers(probe, settle)
    if probe.get("tcp"):
        return _tcp(probe)
    if probe.get("http"):
        return _http(probe)
    if probe.get("command"):
        return _command(probe)
    raise ValueError(f"a probe needs unit, containers, tcp, http or command: {sorted(probe)}")


def ask_until(probes: list[dict[str, Any]], timeout: float, settle: float) -> str | None:
    """Ask all probes again and again until each is good, at most `timeout` seconds in all.

    Returns None, or what the first still failing probe says, with the reason if a unit or container fell. Units and
    containers are watched for `settle` seconds after everything else is good, so that a crash loop is not taken for a
    start.
    """
    deadline = time.monotonic() + timeout
    for probe in sorted(probes, key=_must_stay_up):
        while True:
            problem = ask(probe)
            if problem is None:
                break
            if time.monotonic() >= deadline:
                reason = _fallen(probes, settle)
                return f"{problem}; {reason}" if reason and reason != problem else problem
            time.sleep(0.3)
    return _fallen(probes, settle)


def _fallen(probes: list[dict[str, Any]], settle: float) -> str | None:
    """What the first unit or container says that does not stay up: the reason why a port does not answer."""
    problems = (ask(probe, settle) for probe in probes if _must_stay_up(probe))
    return next((problem for problem in problems if problem), None)


def _must_stay_up(probe: dict[str, Any]) -> bool:
    return bool(probe.get("unit") or probe.get("containers"))
