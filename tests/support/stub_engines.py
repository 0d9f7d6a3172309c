"""Stub engines of a scenario, each a process on a port of the gateway's own host, and what they saw."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from testinfra.host import Host

STUB = Path(__file__).with_name("stub_fault_engine.py")
WAIT = "for i in $(seq 100); do eval %s; sleep 0.1; done; exit 1"
READ = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:%d/seen', timeout=10).read().decode())"


class Engines:
    """Engines by their ports."""

    def __init__(self, host: Host, ports: range) -> None:
        self.host, self.ports = host, ports

    def start(self, *ports: int) -> None:
        """Bring these up, or all; what they have seen begins anew."""
        for port in ports or tuple(self.ports):
            self.host.run(f"systemctl stop stub-{port}")
            start = f"systemd-run --quiet --collect --unit stub-{port} python3 -c %s {port}"
            self.host.check_output(start, STUB.read_text())
        for port in ports or tuple(self.ports):
            self.host.check_output(WAIT, f"ss -ltn | grep -q :{port} && exit 0")

    def kill(self, port: int) -> None:
        """End one as a crash or the kernel would."""
        self.host.check_output(f"systemctl kill --signal KILL stub-{port}")
        self.host.check_output(WAIT, f"ss -ltn | grep -q :{port} || exit 0")

    def stop(self) -> None:
        """End all of them."""
        for port in self.ports:
            self.host.run(f"systemctl stop stub-{port}")

    def seen(self, port: int) -> dict[str, int]:
        """What one has seen."""
        found: dict[str, int] = json.loads(self.host.check_output("python3 -c %s", READ % port))
        return found

    def until(self, port: int, **wanted: int) -> dict[str, int]:
        """What one has seen, once it has seen this."""
        deadline = time.monotonic() + 30
        while any((found := self.seen(port))[name] != value for name, value in wanted.items()):
            assert time.monotonic() < deadline, f"{found} never became {wanted}"
            time.sleep(0.1)
        return found


def events(text: str) -> list[Any]:
    """The data of each event of a stream, as a client reads it: JSON, or `[DONE]`. Raises ValueError."""
    found = []
    for block in filter(None, text.replace("\r\n", "\n").split("\n\n")):
        name, _, data = block.partition(": ")
        if name != "data" or "\n" in data:
            raise ValueError(f"no whole event: {block!r}")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found
