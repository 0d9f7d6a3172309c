"""stub_fault_engine: an engine that ends its answers as it is asked to, and tells what became of them. Python 3.9+.

Argument: port. POST, by fields of the JSON body: `stream`, `events` (3), `size` in characters of each (5), `pause` in
seconds after each event (0), `gap`, the two line ends between events ("\\n\\n"), `prefill`, seconds of silence before
the answer (0), and `end`:

    whole    usage, [DONE] and the end of the answer, as it should be
    close    the connection is closed after the events, without the answer's end
    reset    the same by a reset, as the kernel does for a process that was killed with bytes unread
    half     closed in the middle of a further event
    early    closed after the headers, before any event
    nothing  closed after the request was read, without a byte
    long     events until the client is gone

A plain answer (no `stream`) has a length and ends there, or is cut in its middle with `close`; `port` in it is the
engine's own.
GET /seen: {requests, running, gone, chunks}: requests that came, those being answered, answers whose reader went away,
and how many events the last of these had been written.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 11, "total_tokens": 16, "completion_tokens": 5}
seen = {"requests": 0, "running": 0, "gone": 0, "chunks": 0}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _head(self, kind: str, *more: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (("Content-Type", kind), *more):
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _cut(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _wait(self, seconds: float) -> None:
        """Be silent so long; raises OSError when the client goes away, as an engine notices it."""
        if seconds and select.select([self.connection], [], [], seconds)[0] and not self.connection.recv(1):
            raise ConnectionResetError

    def do_GET(self) -> None:
        """What was seen."""
        body = json.dumps(seen).encode()
        self._head("application/json", ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Answer, and note when the reader goes away."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        with lock:
            seen["requests"] += 1
            seen["running"] += 1
        written = 0
        try:
            for _ in self._answer(asked):
                written += 1
        except OSError:
            self.close_connection = True
            with lock:
                seen["gone"] += 1
                seen["chunks"] = written
        finally:
            with lock:
                seen["running"] -= 1

    def _answer(self, asked: dict[str, object]) -> Iterator[int]:
        end = asked.get("end", "whole")
        if end == "nothing":
            self._cut()
            return
        self._wait(float(str(asked.get("prefill", 0))))
        if not asked.get("stream"):
            answer = {"choices": [{"message": {"content": "x" * 1000}}], "usage": USAGE, "port": int(sys.argv[1])}
            body = json.dumps(answer).encode()
            self._head("application/json", ("Content-Length", str(len(body))))
            self.wfile.write(body if end == "whole" else body[:500])
            if end != "whole":
                self._cut()
            return
        text = "x" * int(str(asked.get("size", 5)))
        gap = str(asked.get("gap", "\n\n")).encode()
        one = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + gap
        self._head("text/event-stream", ("Transfer-Encoding", "chunked"))
        number = 0
        while end != "early" and (end == "long" or number < int(str(asked.get("events", 3)))):
            self._chunk(one)
            number += 1
            yield number
            time.sleep(float(str(asked.get("pause", 0))))
        if end != "whole":
            if end == "half":
                self._chunk(one[:30])
            time.sleep(0.2)  # what was written is on its way
            self._cut(reset=end == "reset")
            return
        self._chunk(b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + gap)
        self._chunk(b"data: [DONE]" + gap)
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    """Takes many at a time."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server((sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
