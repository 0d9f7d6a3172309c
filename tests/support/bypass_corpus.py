"""Requests that must never reach an engine, as the bytes that go over the wire after the TLS handshake.

With a valid key: other routes, the right ones written in another way, other methods, two requests in one. Without one:
the right routes, with everything but a key. Each has a name that says what it tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

BODY = '{"model":"small","messages":[]}'
NAME = "redoubt.lab"
ROUTES = ("v1/chat/completions", "small/v1/chat/completions", "small/v1/models")


@dataclass(frozen=True)
class Attempt:
    """One connection's bytes, and what they try."""

    name: str
    request: bytes


@cache
def _parts() -> dict[str, list[str]]:
    found: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text())
    return found


def _text(line: str, *headers: str, body: str = "", host: str = f"Host: {NAME}") -> bytes:
    length = (f"Content-Length: {len(body)}", "Content-Type: application/json") if body else ()
    lines = [line, *([host] if host else []), *headers, *length, "Connection: close", "", body]
    return "\r\n".join(lines).encode("latin-1")


def _method(route: str) -> str:
    return "GET" if route.endswith("models") else "POST"


def _body(route: str) -> str:
    return "" if route.endswith("models") else BODY


def _routes(bearer: str) -> Iterator[Attempt]:
    for path in _parts()["unsafe"]:
        for prefix in ("", "/small"):
            for method in ("GET", "POST"):
                body = BODY if method == "POST" else ""
                yield Attempt(f"{method} {prefix}{path}", _text(f"{method} {prefix}{path} HTTP/1.1", bearer, body=body))


def _writings(bearer: str) -> Iterator[Attempt]:
    for route in ROUTES:
        cased = [f"/{route.upper()}", f"/{route.title()}", "/" + "".join(f"%{ord(c):02x}" for c in route)]
        cased += [f"/%{ord(route[0]):02X}{route[1:]}", f"/{route[:-1]}%{ord(route[-1]):02x}"]
        for path in [form.format(p=route, q=route.replace("/", "%2f")) for form in _parts()["writings"]] + cased:
            line = f"{_method(route)} {path} HTTP/1.1"
            yield Attempt(f"written: {line}", _text(line, bearer, body=_body(route)))


def _methods(bearer: str) -> Iterator[Attempt]:
    for route in ROUTES:
        for method in (*_parts()["methods"], "POST" if route.endswith("models") else "GET"):
            yield Attempt(f"method: {method} {route}", _text(f"{method} /{route} HTTP/1.1", bearer, body=_body(route)))


def _lines(bearer: str) -> Iterator[Attempt]:
    """Request lines and hosts."""
    for target in _parts()["targets"]:
        yield Attempt(f"absolute: {target}", _text(f"GET {target} HTTP/1.1", bearer))
    for line in _parts()["lines"]:
        yield Attempt(f"line: {line}", _text(line, bearer))
    for version in _parts()["versions"]:
        yield Attempt(f"version: {version!r}", _text(f"GET /small/v1/models{version}", bearer))
    for host in _parts()["hosts"]:
        yield Attempt(f"host: {host!r}", _text("GET /small/v1/models HTTP/1.1", bearer, host=host))


def _smuggled(key: str) -> Iterator[Attempt]:
    """A request to no route, or without a key, whose body is a request that might be taken for the next one."""
    inner = f"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {key}\r\n\r\n"
    for length in _parts()["lengths"]:
        for route, header in (("/none", f"Authorization: Bearer {key}"), ("/small/v1/chat/completions", "X: y")):
            text = f"POST {route} HTTP/1.1\r\nHost: {NAME}\r\n{header}\r\n{length}\r\n\r\n{inner}"
            yield Attempt(f"smuggled: {length!r} {route}", text.encode("latin-1"))


def _keyless(key: str) -> Iterator[Attempt]:
    for route in ROUTES:
        for query in (f"?api_key={key}", f"?key={key}&access_token={key}", f"?Authorization=Bearer%20{key}"):
            line = f"{_method(route)} /{route}{query} HTTP/1.1"
            yield Attempt(f"key in the query: {route}", _text(line, body=_body(route)))
        for form in _parts()["keyless"]:
            header = form.format(key=key, half=key[: len(key) // 2], upper=key.upper(), tail=key[1:])
            request = _text(f"{_method(route)} /{route} HTTP/1.1", header, body=_body(route))
            yield Attempt(f"no key: {form!r} {route}", request)


def attempts(key: str) -> list[Attempt]:
    """All of them; `key` is a valid one."""
    bearer = f"Authorization: Bearer {key}"
    ways = (_routes(bearer), _writings(bearer), _methods(bearer), _lines(bearer), _smuggled(key), _keyless(key))
    return [attempt for way in ways for attempt in way]
