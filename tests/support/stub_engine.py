"""stub_engine: stands where an engine would, to see what the gateway hands on. Standard library only, Python 3.9+.

Arguments: port, events of a stream (default 5), a file whose appearance ends a stream early.
POST: streams events, one each 0.3 s. GET: answers at once. Each answer's first line
tells the request as it came, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNKS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
END = sys.argv[3] if len(sys.argv) > 3 else ""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _answer(self, chunks: int) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        seen = {"line": self.requestline, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(json.dumps(seen) + "\n")
        for number in range(chunks):
            if END and os.path.exists(END):
                break
            self._chunk(f"data: {number}\n\n")
            time.sleep(0.3)
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))
        self.wfile.flush()

    def do_GET(self) -> None:
        """Answer at once."""
        self._answer(0)

    def do_POST(self) -> None:
        """Stream."""
        self._answer(CHUNKS)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
