# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What still runs: requests in an engine, and connections that a gateway holds to engines.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import glob
import http.client
import ipaddress
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.probes import http_request, split_address

# /proc/net/tcp: state 01 is ESTABLISHED, addresses are hexadecimal with the bytes of each 32-bit word turned round.
_ESTABLISHED = "01"
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})? (?P<value>[^ ]+)(?: [0-9]+)?")


def gauges(text: str, names: list[str]) -> dict[str, float]:
    """Sum of each named gauge over its labels, from Prometheus' text format; those that are not there are left out."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.fullmatch(line.rstrip())
        if sample and sample["name"] in names:
            found[sample["name"]] = found.get(sample["name"], 0) + float(sample["value"])
    return found


def engine_work(engine: dict[str, Any], timeout: float = 10) -> str:
    """What an engine still does, in words; empty when it does nothing or when nobody listens there.

    `engine`: {name, address, port, metrics_path, request_metrics: [at work, waiting]} of the plan.
    """
    address = f"[{engine['address']}]" if ":" in engine["address"] else engine["address"]
    url = f"http://{address}:{engine['port']}{engine['metrics_path']}"
    who = f"engine {engine['name']}"
    try:
        status, _, body = http_request(url, timeout=timeout)
    except (ConnectionError, http.client.RemoteDisconnected):
        return ""  # refused or reset: no engine is behind the port, so none has a request
    except (OSError, http.client.HTTPException) as error:
        return f"{who} does not tell ({url}: {error})"
    counts = gauges(body.decode(errors="replace"), engine["request_metrics"]) if status == 200 else {}
    if len(counts) < len(engine["request_metrics"]):
        return f"{who} does not tell ({url} answers {status} without {', '.join(engine['request_metrics'])})"
    running, waiting = (int(counts[name]) for name in engine["request_metrics"])
    return f"{who} has {running} running and {waiting} waiting" if running or waiting else ""


def proc_address(text: str) -> tuple[str, int]:
    """An address of /proc/net/tcp or tcp6 as (IP, port); IPv4 in IPv6 clothes is given as IPv4."""
    word, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(word[i : i + 8])[::-1] for i in range(0, len(word), 8))
    ip = ipaddress.ip_address(raw)
    plain = getattr(ip, "ipv4_mapped", None) or ip
    return str(plain), int(port, 16)


def connections(tables: list[str], inodes: set[str]) -> list[tuple[str, int]]:
    """The far ends of the established connections whose socket is one of `inodes`, from the text of /proc/net/tcp*."""
    ends = []
    for table in tables:
        for line in table.splitlines()[1:]:
            fields = line.split()
            if fields[3] == _ESTABLISHED and fields[9] in inodes:
                ends.append(proc_address(fields[2]))
    return ends


def sockets_of(program: str, proc: str = "/proc") -> set[str]:
    """Inodes of the sockets that processes of this name hold."""
    found = set()
    for comm in glob.glob(f"{proc}/[0-9]*/comm"):
        # Processes end and files are closed while we look.
        with suppress(OSError):
            if Path(comm).read_text().strip() != program:
                continue
            for entry in os.scandir(os.path.join(os.path.dirname(comm), "fd")):
                with suppress(OSError):
                    link = os.readlink(entry.path)
                    found |= {link[len("socket:[") : -1]} if link.startswith("socket:[") else set()
    return found


def gateway_work(servers: list[str], proc: str = "/proc") -> list[str]:
    """What Nginx on this machine still passes to each of these servers (host:port), in words; empty when nothing.

    Old workers close their idle connections when they are told to go, so an open one is a request.
    """
    inodes = sockets_of("nginx", proc)
    tables = [Path(proc, "net", name) for name in ("tcp", "tcp6")]
    ends = connections([table.read_text() for table in tables if table.exists()], inodes)
    counts = {server: ends.count(split_address(server)) for server in servers}
    return [f"the gateway has {count} open to {server}" for server, count in counts.items() if count]
