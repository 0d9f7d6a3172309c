"""One question to a model through the gateway: TLS, API key, streamed answer."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DONE = "[DONE]"
TIMEOUT = 120.0


class AskError(RuntimeError):
    """The gateway or the model did not answer as it must; the text says how."""


@dataclass(frozen=True)
class Gateway:
    """Where a gateway is: the name on its certificate, its address, the CA that signed, the file with the key."""

    name: str
    address: str
    ca_file: Path
    key_file: Path
    port: int = 443


@dataclass(frozen=True)
class Answer:
    """A whole answer: text, number of chunks with text in them, seconds to the first of them and in all."""

    text: str
    chunks: int
    first: float
    seconds: float


def question(model: str, text: str, max_tokens: int = 32) -> dict[str, Any]:
    """The body of a streamed chat request whose answer is the same every time."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
    }


def pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """The texts in a stream of server-sent events, one by one.

    Raises AskError for an error in the stream, for what is no JSON, and for a stream that ends before its end mark.
    """
    for raw in lines:
        line = raw.decode("utf-8", "replace").strip()
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == DONE:
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise AskError(f"the stream holds what is no JSON: {data[:200]}") from error
        if "error" in event:
            raise AskError(f"the model reported an error in its stream: {event['error']}")
        for choice in event.get("choices", []):
            text = choice.get("delta", {}).get("content")
            if text:
                yield text
    raise AskError("the stream broke off before its end")


def ask(gateway: Gateway, body: dict[str, Any], on_text: Callable[[str], None]) -> Answer:
    """Sends the request and hands each piece of the answer to `on_text` as it comes. Raises AskError."""
    headers = {
        "Authorization": f"Bearer {gateway.key_file.read_text(encoding='utf-8').strip()}",
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
    }
    connection = _Connection(gateway)
    start = time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            text = response.read(2000).decode("utf-8", "replace").strip()
            raise AskError(f"{gateway.name} ({gateway.address}) answered {response.status}: {text[:500]}")
        return _collect(response, start, on_text)
    except ssl.SSLError as error:
        place = f"{gateway.name} ({gateway.address})"
        raise AskError(f"TLS to {place} failed with the CA {gateway.ca_file}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise AskError(f"no answer from {gateway.name} ({gateway.address}:{gateway.port}): {error!r}") from error
    finally:
        connection.close()


def _collect(response: http.client.HTTPResponse, start: float, on_text: Callable[[str], None]) -> Answer:
    found: list[str] = []
    first = 0.0
    for piece in pieces(iter(response.readline, b"")):
        first = first or time.monotonic() - start
        found.append(piece)
        on_text(piece)
    return Answer("".join(found), len(found), first, time.monotonic() - start)


class _Connection(http.client.HTTPSConnection):
    """Connects to the address, but expects the certificate of the name: nothing needs to stand in /etc/hosts."""

    def __init__(self, gateway: Gateway) -> None:
        self._address = gateway.address
        self._tls = ssl.create_default_context(cafile=str(gateway.ca_file))
        super().__init__(gateway.name, gateway.port, context=self._tls, timeout=TIMEOUT)

    def connect(self) -> None:
        """Open the connection; called by the base class."""
        plain = socket.create_connection((self._address, self.port), TIMEOUT)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
