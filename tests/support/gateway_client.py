"""A client of the gateway in the lab: one that speaks as it likes, and one that holds a stream open."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

from testinfra.host import Host

from tests.support.raw_http import context, exchange, written

ALICE = "sk-Alice-0123456789abcdef0123456789abcdef0123456789abcd"
CHAT = "/v1/chat/completions"
Answer = dict[str, Any]


def secret(name: str) -> str:
    """The key of a client that has no special one, as converge.yml makes it."""
    return f"sk-{name}-00112233445566778899aabbccddeeff"


def ask(address: str, path: str, key: str | None = ALICE, headers: dict[str, str] | None = None, **body: Any) -> Answer:
    method = "GET" if path.endswith("/models") else "POST"
    text = json.dumps(body) if method == "POST" else ""
    return exchange(address, 443, written(path, method, key=key, body=text, headers=headers), context(), "redoubt.lab")


def code(answer: Answer) -> str:
    error = json.loads(answer["body"])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def stream_open(address: str, key: str, path: str = CHAT, **body: Any) -> ssl.SSLSocket:
    """A request whose answer has begun."""
    plain = socket.create_connection((address, 443), timeout=30)
    opened = context().wrap_socket(plain, server_hostname="redoubt.lab")
    opened.sendall(written(path, "POST", key=key, body=json.dumps({"stream": True, **body})).encode())
    seen = b""
    while b"data: " not in seen:
        part = opened.recv(4096)
        assert part, seen
        seen += part
    return opened


def rest(opened: ssl.SSLSocket) -> str:
    """Everything until the end."""
    parts = []
    with opened:
        while part := opened.recv(65536):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")


def count(host: Host) -> int:
    """Requests that the engine has seen."""
    found = host.check_output(
        "python3 -c %s", "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8101/count').read().decode())"
    )
    return int(json.loads(found)["count"])
