"""HTTP requests exactly as written, over TLS or not: nothing is normalised, added or retried.

Standard library only; also runs on a lab host: `python3 -c "$(cat raw_http.py)" < questions.json`.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from typing import Any


def context(lowest: str = "TLSv1_2", highest: str = "TLSv1_3", ca: str | None = None) -> ssl.SSLContext:
    """A client that speaks these versions, however weak, and checks the certificate only when a CA is given."""
    # Reading the machine's own authorities takes longer than a request, and nobody would use them.
    made = ssl.create_default_context(cafile=ca) if ca else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version = ssl.TLSVersion[lowest]
    made.maximum_version = ssl.TLSVersion[highest]
    return made


def exchange(
    address: str,
    port: int,
    request: str | bytes,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    timeout: float = 30,
) -> dict[str, Any]:
    """Send a request and read until the other side closes or resets the connection.

    Returns {status, headers (lower case), body (as it came, chunks marked), content (the body without the marks of
    its chunks), tls, arrivals (seconds of each read)}; `status` is 0 when nothing came back. Raises OSError
    (ssl.SSLError for a refused handshake).
    """
    with socket.create_connection((address, port), timeout=timeout) as plain:
        stream: socket.socket = plain
        version = None
        if tls is not None:
            stream = tls.wrap_socket(plain, server_hostname=server_name)
            version = stream.version() if isinstance(stream, ssl.SSLSocket) else None
        stream.sendall(request if isinstance(request, bytes) else request.encode("latin-1"))
        parts, arrivals, begin = [], [], time.monotonic()
        while True:
            try:
                part = stream.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                break
            parts.append(part)
            arrivals.append(time.monotonic() - begin)
        if stream is not plain:
            stream.close()
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "replace").split("\r\n")
    words = lines[0].split(" ", 2)
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    content = _joined(body) if headers.get("transfer-encoding") == "chunked" else body
    return {
        "status": status,
        "headers": headers,
        "body": body.decode("utf-8", "replace"),
        "content": content.decode("utf-8", "replace"),
        "tls": version,
        "arrivals": arrivals,
    }


def _joined(body: bytes) -> bytes:
    """The bytes of the chunks, which may end anywhere, also within a character."""
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        parts.append(body[:length])
        body = body[length + 2 :]
    return b"".join(parts)


def written(
    path: str,
    method: str = "GET",
    host: str | None = "redoubt.lab",
    key: str | None = None,
    body: str = "",
    headers: dict[str, str] | None = None,
) -> str:
    """A request with this very path; the connection is closed after it."""
    fields = {"Connection": "close", **(headers or {})}
    if host is not None:
        fields["Host"] = host
    if key is not None:
        fields["Authorization"] = f"Bearer {key}"
    if body or method == "POST":
        fields["Content-Length"] = str(len(body.encode()))
        fields.setdefault("Content-Type", "application/json")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body}"


def answer_all(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer questions {address, port, request, server_name or null} one after another; errors as {error}."""
    answers = []
    for question in questions:
        tls = context() if question["server_name"] else None
        try:
            found = exchange(
                question["address"], question["port"], question["request"], tls, question["server_name"], 10
            )
        except OSError as error:
            found = {"error": str(error)}
        answers.append(found)
    return answers


if __name__ == "__main__":
    json.dump(answer_all(json.load(sys.stdin)), sys.stdout)
