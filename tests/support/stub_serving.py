"""stub_serving: stands where vLLM would, in a container of a release. Standard library only, Python 3.9+.

Takes vLLM's words `--port`, `--served-model-name` and passes over the others. Answers /health, /v1/models, /metrics
(vLLM's two gauges, counted truly), /stub/seen (how many requests for tokens came so far) and any POST. One with
`stub_events: N` streams N events, one each 0.2 s, and counts as running until its end.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOCK = threading.Lock()
COUNTS = {"running": 0, "seen": 0}


def word(name: str) -> str:
    """The value after a flag."""
    return sys.argv[sys.argv.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _send(self, text: str, status: int = 200, kind: str = "application/json") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """What vLLM has without a body."""
        model = word("--served-model-name")
        label = f'{{engine="0",model_name="{model}"}}'
        answers = {
            "/health": "",
            "/v1/models": json.dumps({"data": [{"id": model}]}),
            "/stub/seen": json.dumps(COUNTS),
            "/metrics": f"# HELP vllm:num_requests_running requests\nvllm:num_requests_running{label} "
            f"{float(COUNTS['running'])}\nvllm:num_requests_waiting{label} 0.0\n",
        }
        self._send(answers.get(self.path, ""), 200 if self.path in answers else 404)

    def do_POST(self) -> None:
        """A completion, at once or as a stream."""
        asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            COUNTS["running"] += 1
            COUNTS["seen"] += 1
        try:
            self._stream(asked["stub_events"]) if "stub_events" in asked else self._complete()
        finally:
            with LOCK:
                COUNTS["running"] -= 1

    def _complete(self) -> None:
        self._send(json.dumps({"choices": [{"text": " Paris."}], "usage": {"completion_tokens": 3}}))

    def _stream(self, events: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(events):
            self._chunk(f"data: {number}\n\n")
            time.sleep(0.2)
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))
        self.wfile.flush()


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(word("--port"))), Handler).serve_forever()  # noqa: S104 - in a container
