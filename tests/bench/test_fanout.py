"""Fan-out: eight hosts get a model from an origin behind a slow line, against one host that gets it alone.

All of it on this machine: each host is a process of its own with an Nginx of its own, on loopback addresses. Nothing
slows the way between hosts, but all share this machine's cores: .venv/bin/pytest -s tests/bench/test_fanout.py
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.results import record
from tests.support.fanout_hosts import hosts
from tests.support.image_archives import payload
from tests.support.ports import free_port
from tests.support.site import REPOSITORY
from tests.support.weight_trees import model, write_tree

pytestmark = pytest.mark.slow
MIB = 1 << 20
COUNT = 8
FILES, FILE_BYTES = 48, 4 * MIB
RATE = int(os.environ.get("REDOUBT_BENCH_LINE", "6000000"))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    root = tmp_path_factory.mktemp("origin")
    files = {f"shard-{number:02}": payload(FILE_BYTES, number) for number in range(FILES)}
    write_tree(root / "tiny", files)
    port = free_port()
    command = [sys.executable, "-m", "tests.support.slow_origin", str(root), str(port), str(RATE)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                sent(base)
                break
            except OSError:
                time.sleep(0.05)
        yield base, model(files)
    finally:
        process.terminate()
        process.wait()


def sent(base: str) -> int:
    """Bytes that the origin has sent."""
    connection = http.client.HTTPConnection(base.removeprefix("http://"))
    connection.request("GET", "/sent")
    try:
        return int(connection.getresponse().read())
    finally:
        connection.close()


def measured(origin: tuple[str, dict[str, Any]], count: int) -> tuple[float, float, list[dict[str, Any]]]:
    """Seconds until the last host has the model, bytes of the origin by those of the model, what the hosts say."""
    base, wanted = origin
    size = sum(file["size"] for file in wanted["files"])
    with hosts(free_port(), count, [wanted], base, piece=MIB) as made:
        before, began = sent(base), time.perf_counter()
        said = list(made.all().values())
        return time.perf_counter() - began, (sent(base) - before) / size, said


def test_eight_hosts_against_one(origin: tuple[str, dict[str, Any]]) -> None:
    one, _, alone = measured(origin, 1)
    eight, ratio, together = measured(origin, COUNT)
    assert [item["states"] for item in (*alone, *together)] == [["published"]] * (1 + COUNT)
    figures = {
        "hosts": COUNT,
        "bytes": FILES * FILE_BYTES,
        "line_bytes_per_second": RATE,
        "one_host_seconds": round(one, 1),
        "eight_hosts_seconds": round(eight, 1),
        "ratio": round(eight / one, 2),
        "origin_bytes_by_model_bytes": round(ratio, 3),
        "cores": os.cpu_count(),
    }
    record("weights_fanout", figures)
