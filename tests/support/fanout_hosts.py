"""Hosts of an exchange on loopback addresses: each with its store and the real Nginx, as the module configures it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ansible.module_utils.fanout import serving

from tests.support.programs import client, nginx

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Hosts:
    """The hosts h1, h2 … and what runs of them."""

    root: Path
    port: int
    count: int
    models: Sequence[dict[str, Any]]
    origin: str
    more: dict[str, Any] = field(default_factory=dict)
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    runs: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def peers(self) -> dict[str, str]:
        """Address of each host."""
        return {f"h{number}": f"127.0.0.{number + 1}" for number in range(1, self.count + 1)}

    def serve(self) -> None:
        """Make the certificates and start every host's Nginx."""
        for name in self.peers:
            (self.root / name).mkdir()
        given = {
            address: serving.make_identity(self.root / name / "run", address) for name, address in self.peers.items()
        }
        for name, address in self.peers.items():
            folder = self.root / name / "run"
            serving.prepare(folder, self.root / name / "models/.blobs", address, self.port, given)
            command = ["nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
            self.servers[name] = subprocess.Popen(command)
        for address in self.peers.values():
            _wait_for(address, self.port)

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start a host's run."""
        order = {
            "name": name,
            "peers": self.peers,
            "port": self.port,
            "root": str(self.root / name),
            "models": list(self.models),
            "origin": self.origin,
            **self.more,
        }
        command = [sys.executable, "-m", "tests.support.fanout_child"]
        run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert run.stdin is not None
        run.stdin.write(json.dumps(order))
        run.stdin.close()
        self.runs.append(run)
        return run

    def all(self) -> dict[str, dict[str, Any]]:
        """Run every host; what each says."""
        started = {name: self.start(name) for name in self.peers}
        return {name: said(run) for name, run in started.items()}

    def published(self, name: str) -> dict[str, bytes]:
        """The files of the first model that are visible on a host."""
        model = self.models[0]
        tree = self.root / name / "models" / model["name"] / model["revision"][:12]
        return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def said(run: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a run; what it says."""
    assert run.stdout is not None
    text = run.stdout.read()
    run.wait()
    document: dict[str, Any] = json.loads(text)
    return document


@contextmanager
def hosts(port: int, count: int, models: Sequence[dict[str, Any]], origin: str, **more: Any) -> Iterator[Hosts]:
    """Hosts that serve, for the time of a test. Their folder is open to Nginx' workers, unlike pytest's own."""
    root = Path(tempfile.mkdtemp(prefix="redoubt-fanout-"))
    root.chmod(0o755)
    made = Hosts(root, port, count, models, origin, more)
    client("openssl", "openssl")
    path = f"{Path(nginx()).parent}:{os.environ['PATH']}"
    try:
        with patch.dict(os.environ, PATH=path):
            made.serve()
            yield made
    finally:
        for run in made.runs:
            run.kill()
            run.wait()
        for server in made.servers.values():
            server.terminate()
            server.wait()
        subprocess.run(["chmod", "-R", "u+w", root], check=True)
        shutil.rmtree(root)


def _wait_for(address: str, port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
