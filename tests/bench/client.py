"""Measures one way to an engine. Runs on the lab host itself, with its Python: standard library only.

Usage: client.py URL MODEL [--ca FILE --name NAME --address ADDRESS] with the key on standard input.
Prints one JSON document: {requests_per_second, first_token_ms: [...], gap_ms: [...]}.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit


def connect(options: argparse.Namespace) -> http.client.HTTPConnection:
    """A connection, over TLS where the URL says so."""
    parts = urlsplit(options.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    plain = socket.create_connection((options.address or parts.hostname, parts.port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock = plain
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=options.ca)
        connection.sock = context.wrap_socket(plain, server_hostname=options.name)
    return connection


def requests_per_second(options: argparse.Namespace, headers: dict[str, str], count: int) -> float:
    """Small requests one after another on one connection."""
    connection = connect(options)
    started = time.perf_counter()
    for _ in range(count):
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"{options.url}/v1/models answers {answer.status}")
    seconds = time.perf_counter() - started
    connection.close()
    return count / seconds


def stream(options: argparse.Namespace, headers: dict[str, str], tokens: int) -> tuple[float, list[float]]:
    """One streamed completion: (milliseconds to the first token, milliseconds between tokens)."""
    body = {"model": options.model, "prompt": "Once upon a time", "max_tokens": tokens, "temperature": 0}
    connection = connect(options)
    connection.request("GET", "/v1/models", headers=headers)  # the handshake is not what is measured here
    connection.getresponse().read()
    started = time.perf_counter()
    connection.request(
        "POST",
        "/v1/completions",
        json.dumps({**body, "stream": True, "ignore_eos": True}),
        {**headers, "Content-Type": "application/json"},
    )
    times = [time.perf_counter() for line in connection.getresponse() if line.startswith(b"data: {")]
    connection.close()
    gaps = [1000 * (after - before) for before, after in itertools.pairwise(times)]
    return 1000 * (times[0] - started), gaps


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--ca")
    parser.add_argument("--name")
    parser.add_argument("--address")
    parser.add_argument("--requests", type=int, default=150)  # below the burst that a key may send
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    key = sys.stdin.readline().strip()
    headers = {
        "Host": options.name or urlsplit(options.url).netloc,
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    stream(options, headers, 4)  # warm
    streams = [stream(options, headers, options.tokens) for _ in range(options.streams)]
    document = {
        "requests_per_second": requests_per_second(options, headers, options.requests),
        "first_token_ms": [first for first, _ in streams],
        "gap_ms": [gap for _, gaps in streams for gap in gaps],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
