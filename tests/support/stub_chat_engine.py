"""stub_chat_engine: answers as an engine would, with usage, in pieces that a network could make. Python 3.9+.

Argument: port. POST, by fields of the JSON body: `stream`, `events` (5), `pause` in seconds between the halves of an
event (0), `padding` characters before the usage of a plain answer (0). A stream's text is Chinese, and each event comes
in two pieces that cut a character in two; its usage comes in three. GET /count: requests that have come so far.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 11, "total_tokens": 16, "completion_tokens": 5}
# A text that looks like usage, as a model could write it.
LURE = '"usage":{"prompt_tokens":99999,"completion_tokens":99999}'
CUT_CHARACTER = "黎".encode()
seen = [0]


def event(document: dict[str, object]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


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

    def _whole(self, body: bytes) -> None:
        self._head("application/json", ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def parse_request(self) -> bool:
        """Count whatever comes, also what cannot be read."""
        readable = super().parse_request()
        if not readable or self.path != "/count":
            seen[0] += 1
        return readable

    def do_GET(self) -> None:
        """Answer at once."""
        self._whole(json.dumps({"count": seen[0]}).encode())

    def do_POST(self) -> None:
        """Answer in one piece, or stream."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if not asked.get("stream"):
            text = LURE + "x" * asked.get("padding", 0)
            answer = {"choices": [{"message": {"content": text}}], "usage": USAGE, "kv_transfer_params": None}
            self._whole(json.dumps(answer, separators=(",", ":")).encode())
            return
        self._head("text/event-stream", ("Transfer-Encoding", "chunked"))
        for _ in range(asked.get("events", 5)):
            whole = event({"choices": [{"delta": {"content": "巴黎"}}]})
            cut = whole.index(CUT_CHARACTER) + 1
            self._chunk(whole[:cut])
            time.sleep(asked.get("pause", 0))
            self._chunk(whole[cut:])
        last = event({"choices": [], "usage": USAGE})
        for piece in (last[:25], last[25:45], last[45:]):
            self._chunk(piece)
            time.sleep(0.05)
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
