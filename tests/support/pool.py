"""A scenario with one gateway and hosts that serve the model `small` with the stub engine: live requests through it."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from tests.support.raw_http import context, exchange, written

KEY = "sk-Alice-0123456789abcdef0123456789abcdef0123456789abcd"
MARK = "/var/lib/redoubt/drained.json"
LOG = "/var/log/nginx/gateway-audit.jsonl"
CONF = "/etc/nginx/nginx.conf"
Answer = dict[str, Any]


def whole(answer: Answer) -> bool:
    """Whether a stream has every event and its end."""
    numbers = re.findall(r"data: (\d+)", answer["body"])
    return numbers == [str(n) for n in range(len(numbers))] and answer["body"].endswith("[DONE]\n\n\r\n0\r\n\r\n")


class Pool:
    """The gateway and the hosts behind it, by their names in the inventory."""

    def __init__(self, gateway: str, *hosts: str) -> None:
        self.gateway = gateway
        self.hosts = hosts
        self.inventory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventory/lab.json")

    def address(self, name: str) -> str:
        """Where a host is."""
        return str(json.loads(self.inventory.read_text())["all"]["hosts"][name]["ansible_host"])

    def other(self, name: str) -> Host:
        """A host of the scenario for testinfra."""
        return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(self.inventory.parent))

    def ask(self, **body: Any) -> Answer:
        """One request through the gateway."""
        text = json.dumps({"model": "small", "prompt": "x", **body})
        request = written("/v1/completions", "POST", key=KEY, body=text)
        return exchange(self.address(self.gateway), 443, request, context(), "redoubt.lab", timeout=120)

    def direct(self, name: str, path: str) -> Any:
        """An answer of a host's engine, past the gateway."""
        return json.loads(exchange(self.address(name), 8101, written(path, host="engine"))["body"])

    @contextmanager
    def traffic(self, workers: int = 5, pause: float = 0.05, **body: Any) -> Iterator[list[Answer]]:
        """Requests all the while, so many at a time; the list collects the answers."""
        answers: list[Answer] = []
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                answers.append(self.ask(**body))
                time.sleep(pause)

        with ThreadPoolExecutor(workers) as pool:
            running = [pool.submit(work) for _ in range(workers)]
            try:
                yield answers
            finally:
                stop.set()
        for worker in running:
            worker.result()

    @contextmanager
    def streams(self) -> Iterator[list[Future[Answer]]]:
        """Streams through the gateway that run until `finish`, one on each engine at least."""
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(self.ask, stub_events=100_000) for _ in range(4)]
            try:
                for name in self.hosts:
                    deadline = time.monotonic() + 30
                    while not self.direct(name, "/stub/seen")["running"]:
                        assert time.monotonic() < deadline, f"no stream reached {name}"
                        time.sleep(0.1)
                yield futures
            finally:
                self.finish()

    def finish(self) -> None:
        """Let the engines end the streams that run, well and whole; one that is stopped has none."""
        for name in self.hosts:
            with suppress(OSError):
                self.direct(name, "/stub/finish")


def statuses(answers: list[Answer]) -> set[int]:
    """The different statuses among answers."""
    return {answer["status"] for answer in answers}
