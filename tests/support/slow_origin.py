"""A web server whose answers together are no faster than a rate, as one line to the outside is.

python -m tests.support.slow_origin FOLDER PORT BYTES_PER_SECOND; GET /sent tells the bytes of files sent so far.
"""

from __future__ import annotations

import http.server
import re
import sys
from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[2] / "module_utils"))

from ansible.module_utils.fetch.pace import Bandwidth  # noqa: E402 - the path had to be set before

CHUNK = 1 << 16


class Origin(http.server.BaseHTTPRequestHandler):
    """Files below `root`, whole or one range."""

    protocol_version = "HTTP/1.1"
    root = Path()
    line = Bandwidth(0)
    sent = 0

    def do_GET(self) -> None:
        if self.path == "/sent":
            self._head(200, len(text := str(Origin.sent).encode()))
            self.wfile.write(text)
            return
        path = self.root / self.path.lstrip("/")
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(found[1]), int(found[2]) + 1) if found else (0, size)
        self._head(206 if found else 200, stop - start, f"bytes {start}-{stop - 1}/{size}" if found else "")
        with path.open("rb") as stream:
            stream.seek(start)
            while start < stop:
                data = stream.read(min(CHUNK, stop - start))
                self.line.take(len(data))
                self.wfile.write(data)
                start += len(data)
                Origin.sent += len(data)

    def _head(self, status: int, length: int, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Origin.root, Origin.line = Path(sys.argv[1]), Bandwidth(int(sys.argv[3]))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Origin)
    server.daemon_threads = True
    server.serve_forever()
