"""Ports for servers that a test starts itself."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(outgoing: Path = OUTGOING) -> int:
    """A port that nobody has on any address, and that the kernel gives to no outgoing connection afterwards.

    A port that the kernel chooses (0) is of its range for outgoing connections, so any of them may take it before the
    server binds it.

    Raises:
        OSError: 100 ports in a row were taken.
    """
    highest = int(outgoing.read_text().split()[0])
    for _ in range(100):
        port = random.randrange(LOWEST, highest)  # noqa: S311 - no secret
        with socket.socket() as attempt:
            # As servers do: what is left of a closed connection is in nobody's way.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("0.0.0.0", port))  # noqa: S104 - to see that it is free on all addresses
                attempt.listen()
            except OSError:
                continue
            return port
    raise OSError(f"no free port of {LOWEST} to {highest} in 100 attempts")
