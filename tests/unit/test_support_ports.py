"""Ports of test servers: outside the kernel's own range, and free on every address."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support import ports


def test_a_free_port_is_below_those_of_outgoing_connections() -> None:
    lowest = int(ports.OUTGOING.read_text().split()[0])
    found = {ports.free_port() for _ in range(20)}
    assert all(ports.LOWEST <= port < lowest for port in found)
    assert len(found) > 1


def test_a_port_that_one_address_has_is_not_free(tmp_path: Path) -> None:
    taken = ports.free_port()
    outgoing = tmp_path / "range"
    outgoing.write_text(f"{taken + 1} 60999\n")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.3", taken)):
        patch.setattr(ports, "LOWEST", taken)
        with pytest.raises(OSError, match=f"no free port of {taken} to {taken + 1}"):
            ports.free_port(outgoing)
