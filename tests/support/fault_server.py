"""A web server on loopback that has files, knows ranges, and does wrong what a test tells it to do wrong."""

from __future__ import annotations

import http.server
import re
import socket
import ssl
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Asked:
    """One request: target as sent (path and query, or a whole address by a proxy's client), range, headers."""

    target: str
    range: tuple[int, int] | None
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path without query, unquoted."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self.target).path)


@dataclass(frozen=True)
class Fault:
    """What is to go wrong with one answer; fields that are None are as they should be."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    drip: bool = False
    ignore_range: bool = False
    shift: int = 0
    stated_size: int | None = None
    chunked: bool = False


Rule = Callable[[Asked], Fault | None]


class FaultServer:
    """Files by path, a rule that says what goes wrong, and a record of what was asked and sent."""

    def __init__(self, files: Mapping[str, bytes], tls: ssl.SSLContext | None = None) -> None:
        self.files = dict(files)
        self.rule: Rule = lambda asked: None
        self.asked: list[Asked] = []
        self.sent: Counter[str] = Counter()
        self.connections = 0
        self.tunnels = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        kind = type("FaultHandler", (_Handler,), {"fault_server": self})
        self._server = _Quiet(("127.0.0.1", 0), kind)
        self._tls = tls
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)

    @property
    def port(self) -> int:
        """The port on loopback."""
        return int(self._server.server_address[1])

    @property
    def base(self) -> str:
        """The address of its root."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Let stalled answers go, and end."""
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def total(self) -> int:
        """Bytes of bodies sent so far."""
        with self.lock:
            return sum(self.sent.values())


@contextmanager
def serving(files: Mapping[str, bytes], tls: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
    """A server for the time of a test."""
    server = FaultServer(files, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def first(times: int, fault: Fault, path: str = "") -> Rule:
    """A rule: the first `times` requests (whose path ends so) go wrong."""
    left = [times]
    lock = threading.Lock()

    def rule(asked: Asked) -> Fault | None:
        with lock:
            if asked.path.endswith(path) and left[0] > 0:
                left[0] -= 1
                return fault
        return None

    return rule


def always(fault: Fault, path: str = "") -> Rule:
    """A rule: every request (whose path ends so) goes wrong."""
    return lambda asked: fault if asked.path.endswith(path) else None


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what these tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fault_server: FaultServer

    def setup(self) -> None:
        super().setup()
        with self.fault_server.lock:
            self.fault_server.connections += 1

    def do_GET(self) -> None:
        found = RANGE.fullmatch(self.headers.get("Range", ""))
        span = (int(found.group(1)), int(found.group(2)) + 1) if found else None
        asked = Asked(self.path, span, dict(self.headers.items()))
        with self.fault_server.lock:
            self.fault_server.asked.append(asked)
        fault = self.fault_server.rule(asked) or Fault()
        data = self.fault_server.files.get(asked.path)
        if fault.status is not None:
            self._plain(fault.status, fault)
        elif data is None:
            self._plain(404, fault)
        else:
            self._file(asked, data if fault.body is None else fault.body, fault)

    def do_CONNECT(self) -> None:
        """Be a proxy: carry bytes both ways until one side ends."""
        asked = Asked(self.path, None, dict(self.headers.items()))
        with self.fault_server.lock:
            self.fault_server.asked.append(asked)
        fault = self.fault_server.rule(asked)
        if fault is not None and fault.status is not None:
            self._plain(fault.status, fault)
            return
        with self.fault_server.lock:
            self.fault_server.tunnels += 1
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_carry, args=[there, self.connection], daemon=True)
            back.start()
            _carry(self.connection, there)
            back.join()
        self.close_connection = True

    def _plain(self, status: int, fault: Fault) -> None:
        body = b"what a server says" if fault.body is None else fault.body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(body, fault)

    def _file(self, asked: Asked, data: bytes, fault: Fault) -> None:
        size = len(data) if fault.stated_size is None else fault.stated_size
        span = None if fault.ignore_range else asked.range
        if span is not None and span[0] >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = span or (0, len(data))
        start, stop = start + fault.shift, min(stop + fault.shift, len(data))
        self.send_response(206 if span else 200)
        headers = {"ETag": '"one"', **fault.headers}
        if span:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(stop - start if span else size)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        body = data[start:stop]
        if fault.chunked:
            body = b"".join(
                b"%x\r\n%s\r\n" % (len(part), part)
                for part in (body[at : at + 5000] for at in range(0, len(body), 5000))
            )
            body += b"0\r\n\r\n"
        self._send(body, fault)

    def _send(self, body: bytes, fault: Fault) -> None:
        end = len(body)
        for limit in (fault.cut_after, fault.stall_after):
            end = end if limit is None else min(end, limit)
        try:
            step = 1 if fault.drip else 1 << 16
            for at in range(0, end, step):
                part = body[at : min(at + step, end)]
                # Counted first: whoever has read the part must find it counted.
                with self.fault_server.lock:
                    self.fault_server.sent[urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)] += len(part)
                self.wfile.write(part)
                if fault.drip and self.fault_server.released.wait(0.02):
                    break
        except OSError:
            self.close_connection = True
            return
        if end < len(body):
            if fault.stall_after is not None:
                self.fault_server.released.wait()
            self.close_connection = True
            # Closed now, not when the garbage collector comes by.
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
