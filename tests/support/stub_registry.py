"""A stub of an image registry that wants bearer tokens, as public ones do: manifests, blobs, a server of tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible.module_utils.gather import oci

TOKEN = "a-token-for-tests"
LOGIN = base64.b64encode(b"robot:secret").decode()


@dataclass
class StubRegistry:
    """What it has, and what it was asked; `login` is wanted for a token when `private`."""

    host: str = ""
    private: bool = False
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def push(self, name: str, tag: str, architectures: tuple[str, ...], content: bytes = b"layer") -> str:
        """Put an image there, an index for several architectures; return its digest."""
        rows = []
        for architecture in architectures:
            layer = content + architecture.encode()
            config = {"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": [_digest(layer)]}}
            data = json.dumps(config).encode()
            self.blobs |= {_digest(layer): layer, _digest(data): data}
            manifest = {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "config": {"mediaType": oci.CONFIG, "digest": _digest(data), "size": len(data)},
                "layers": [{"mediaType": oci.LAYER, "digest": _digest(layer), "size": len(layer)}],
            }
            text = json.dumps(manifest).encode()
            self.manifests[f"{name}@{_digest(text)}"] = (oci.MANIFEST, text)
            rows.append({"mediaType": oci.MANIFEST, "digest": _digest(text), "size": len(text)})
            rows[-1]["platform"] = {"os": "linux", "architecture": architecture}
        text, kind = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": rows}).encode(), oci.INDEX
        if len(architectures) == 1:
            kind, text = self.manifests[f"{name}@{rows[0]['digest']}"]
        self.manifests[f"{name}@{_digest(text)}"] = self.manifests[f"{name}:{tag}"] = (kind, text)
        return _digest(text)


@contextmanager
def running(**options: Any) -> Iterator[StubRegistry]:
    """Run one on this machine's loopback."""
    stub = StubRegistry(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stub.asked.append(self.path)
            url = urlsplit(self.path)
            if url.path == "/token":
                self._token(parse_qs(url.query))
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                challenge = f'Bearer realm="http://{stub.host}/token",service="stub"'
                self._send(401, b"{}", {"WWW-Authenticate": challenge})
            else:
                self._part(url.path)

        def _token(self, query: dict[str, list[str]]) -> None:
            good = not stub.private or self.headers.get("Authorization") == f"Basic {LOGIN}"
            good = good and query["scope"][0].startswith("repository:") and query["service"] == ["stub"]
            self._send(200 if good else 401, json.dumps({"token": TOKEN} if good else {}).encode(), {})

        def _part(self, path: str) -> None:
            name, _, reference = path.removeprefix("/v2/").rpartition("/")
            name, _, kind = name.rpartition("/")
            if kind == "blobs" and reference in stub.blobs:
                self._send(200, stub.blobs[reference], {"Content-Type": "application/octet-stream"})
                return
            known = stub.manifests.get(f"{name}{'@' if reference.startswith('sha256:') else ':'}{reference}")
            kind, data = known or ("application/json", b"{}")
            self._send(200 if known else 404, data, {"Content-Type": kind})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
