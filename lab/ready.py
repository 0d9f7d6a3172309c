"""Waiting for a host: first for its systemd, then for SSH."""

from __future__ import annotations

import time
from collections.abc import Iterator

from docker.errors import APIError
from docker.models.containers import Container

from lab import ssh
from lab.errors import LabError
from lab.record import Host
from lab.report import Report

READY_SECONDS = 180


def wait(item: Container, host: Host, report: Report) -> None:
    """Wait until systemd has started all and SSH lets us in. Raises LabError with what is missing."""
    deadline = time.monotonic() + READY_SECONDS
    state = "not started"
    while time.monotonic() < deadline:
        item.reload()
        if item.status != "running":
            tail = _text(item.logs(tail=15))
            raise LabError(f"host {host.name} stopped while starting ({item.status}):\n{tail}")
        state = _inside(item, "systemctl", "is-system-running")
        if state in ("running", "degraded"):
            break
        time.sleep(0.3)
    else:
        raise LabError(f"host {host.name}: systemd is still {state!r} after {READY_SECONDS} s")
    if state == "degraded":
        failed = _inside(item, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
        units = ", ".join(line.split()[0] for line in failed.splitlines() if line.strip())
        report.step(f"Host {host.name}: failed units: {units}")
    problem: str | None = "no answer"
    while time.monotonic() < deadline:
        problem = ssh.answers(host.address, host.user, host.key_file, host.known_hosts_file)
        if problem is None:
            return
        time.sleep(0.3)
    raise LabError(f"host {host.name} at {host.address} lets no one in over SSH: {problem}")


def _inside(item: Container, *command: str) -> str:
    """What a command on the host prints. Raises LabError where the host has just gone off."""
    try:
        return _text(item.exec_run(list(command)).output)
    except APIError as error:
        raise LabError(f"host {item.name} takes no commands: {error.explanation or error}") from error


def _text(output: bytes | Iterator[bytes]) -> str:
    whole = output if isinstance(output, bytes) else b"".join(output)
    return whole.decode(errors="replace").strip()
