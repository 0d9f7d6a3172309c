"""stub_serving: stands where vLLM would, in a container of a release. Standard library only, Python 3.9+.

Takes vLLM's words `--port`, `--served-model-name`, `--tensor-parallel-size` and passes over the others. With the last
one it starts only where it finds the model's folder, and exactly so many GPUs: their device nodes, and in nvidia-smi.
Answers /health, /v1/models, /metrics (vLLM's two gauges, counted truly), /stub/seen (how many requests for tokens came
so far) and any POST: it always says Paris, at once or, with `stream: true`, in pieces. With `stub_events: N` it streams
N events, one each 0.2 s, and counts as running until their end; GET /stub/finish ends all that run, well and whole.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOCK = threading.Lock()
COUNTS = {"running": 0, "seen": 0, "finished": 0}


WORDS = ("The capital of France", " is", " Paris.")


def word(name: str) -> str:
    """The value after a flag."""
    return sys.argv[sys.argv.index(name) + 1]


def refusal(wanted: int, model: str) -> str:
    """Why an engine for so many GPUs cannot start here; empty when it can."""
    nodes = glob.glob("/dev/nvidia[0-9]*")
    try:
        done = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, text=True, check=False)
        listed = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    except OSError as error:
        return f"nvidia-smi: {error}"
    if not len(nodes) == len(listed) == wanted:
        return f"{wanted} GPUs wanted, {len(nodes)} device nodes here, {len(listed)} in nvidia-smi -L"
    return "" if os.path.exists(f"{model}/config.json") else f"{model} has no config.json"


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
        if self.path == "/stub/finish":
            with LOCK:
                COUNTS["finished"] += 1
        model = word("--served-model-name")
        label = f'{{engine="0",model_name="{model}"}}'
        answers = {
            "/health": "",
            "/v1/models": json.dumps({"data": [{"id": model}]}),
            "/stub/seen": json.dumps(COUNTS),
            "/stub/finish": json.dumps(COUNTS),
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
            if "stub_events" in asked:
                self._stream([str(number) for number in range(asked["stub_events"])], 0.2)
            elif asked.get("stream"):
                self._stream([json.dumps({"choices": [self._choice("delta", text)]}) for text in WORDS], 0)
            else:
                text = "".join(WORDS)
                self._send(json.dumps({"choices": [self._choice("message", text)], "usage": {"completion_tokens": 3}}))
        finally:
            with LOCK:
                COUNTS["running"] -= 1

    def _choice(self, key: str, text: str) -> dict[str, Any]:
        return {key: {"content": text}} if "chat" in self.path else {"text": text}

    def _stream(self, events: list[str], pause: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        finished = COUNTS["finished"]
        for event in events:
            self._chunk(f"data: {event}\n\n")
            if COUNTS["finished"] != finished:
                break
            time.sleep(pause)
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))
        self.wfile.flush()


if __name__ == "__main__":
    if "--tensor-parallel-size" in sys.argv:
        why = refusal(int(word("--tensor-parallel-size")), sys.argv[1])
        if why:
            sys.exit(f"stub engine: {why}")
    ThreadingHTTPServer(("0.0.0.0", int(word("--port"))), Handler).serve_forever()  # noqa: S104 - in a container
