"""Weights: fetching against curl from a static Nginx on loopback, proving against hashlib, repair, nothing to do.

All of it on this machine, without a lab host: .venv/bin/pytest -s tests/bench/test_weights.py
REDOUBT_BENCH_MIB sets the size of the large file (4096).
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present, verified
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.web import Web

from tests.bench.results import record
from tests.support.image_archives import payload
from tests.support.weight_trees import REVISIONS

pytestmark = pytest.mark.slow
ROUNDS = 3
MIB = 1 << 20
LARGE = int(os.environ.get("REDOUBT_BENCH_MIB", "4096")) * MIB
FILES, FILE_BYTES = 500, 4 * MIB + 99_999
PORT = 18_998
CONFIGURATION = """
{user}
worker_processes 2;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{}}
http {{
  access_log {root}/access.log;
  sendfile on;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}/www; }}
}}
"""


@dataclass
class Mirror:
    """A static Nginx with one model of one large file and one of many files."""

    root: Path
    base: str
    models: dict[str, Model] = field(default_factory=dict)

    def bring(self, name: str, place: Path) -> Any:
        """Fetch and publish a model; returns its outcome."""
        store = Store(place / "models", place / "state")
        _, (outcome,) = present(store, [self.models[name]], [Web(self.base)], Settings())
        return outcome

    def sent(self) -> int:
        """Bytes that Nginx has sent."""
        lines = (self.root / "access.log").read_text().splitlines()
        return sum(int(line.split('" ')[1].split(" ")[1]) for line in lines)


def listed(name: str, files: dict[str, Path]) -> Model:
    """The model of files on the disk."""
    entries = []
    for path, place in files.items():
        with place.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append({"path": path, "size": place.stat().st_size, "sha256": digest})
    (model,) = parse_models([{"name": name, "revision": REVISIONS[0], "files": entries}])
    result: Model = model
    return result


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("no nginx on this machine: apt-get install nginx-light")
    root = tmp_path_factory.mktemp("mirror")
    (root / "www/large").mkdir(parents=True)
    (root / "www/many").mkdir()
    block = payload(64 * MIB, 1)
    with (root / "www/large/big").open("wb") as stream:
        for number in range(LARGE // len(block)):
            stream.write(number.to_bytes(8, "big"))
            stream.write(block[8:])
    for number in range(FILES):
        (root / f"www/many/{number:03}").write_bytes(number.to_bytes(8, "big") + block[8:FILE_BYTES])
    made = Mirror(root, f"http://127.0.0.1:{PORT}")
    made.models["large"] = listed("large", {"big": root / "www/large/big"})
    made.models["many"] = listed("many", {f"{number:03}": root / f"www/many/{number:03}" for number in range(FILES)})
    user = "user root;" if os.geteuid() == 0 else ""  # as who the files are, in a folder of root's
    (root / "nginx.conf").write_text(CONFIGURATION.format(root=root, port=PORT, user=user))
    process = subprocess.Popen([nginx, "-c", root / "nginx.conf", "-g", "daemon off;"])
    try:
        yield made
    finally:
        process.terminate()
        process.wait()


def rate(size: int, work: Callable[[], object]) -> float:
    """MB/s of a piece of work."""
    began = time.perf_counter()
    work()
    return size / (time.perf_counter() - began) / 1e6


def fresh(place: Path) -> Path:
    """An empty folder."""
    if place.exists():
        subprocess.run(["rm", "-rf", place], check=True)
    place.mkdir()
    return place


def curl(mirror: Mirror, name: str, place: Path) -> None:
    """Fetch a model's files as curl does at its fastest: one connection, kept; nothing is proved."""
    lines = "".join(
        f'url = "{mirror.base}/{name}/{entry.path}"\noutput = "{place / entry.path}"\n'
        for entry in mirror.models[name].files
    )
    subprocess.run(["curl", "-sS", "-f", "-K", "-"], input=lines, text=True, check=True)


@pytest.mark.parametrize("name", ["large", "many"])
def test_fetch_with_proof_against_curl_without(mirror: Mirror, tmp_path: Path, name: str) -> None:
    size = mirror.models[name].total_size
    ours, theirs, processor = [], [], []
    for _ in range(ROUNDS):
        theirs.append(rate(size, lambda: curl(mirror, name, fresh(tmp_path / "curl"))))
        place = fresh(tmp_path / "ours")
        before = os.times()
        ours.append(rate(size, functools.partial(mirror.bring, name, place)))
        after = os.times()
        processor.append(after.user + after.system - before.user - before.system)
    figures = {
        "bytes": size,
        "ours_mb_per_second": [round(item) for item in ours],
        "curl_mb_per_second": [round(item) for item in theirs],
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(theirs), 2),
        "our_cpu_seconds": [round(item, 1) for item in processor],
    }
    record(f"weights_fetch_{name}", figures)


def test_proving_all_again_against_hashlib(mirror: Mirror, tmp_path: Path) -> None:
    mirror.bring("many", tmp_path)
    store, model = Store(tmp_path / "models", tmp_path / "state"), mirror.models["many"]
    single, ours = [], []

    def hash_one_after_another() -> None:
        for entry in model.files:
            with (store.published(model) / entry.path).open("rb") as stream:
                hashlib.file_digest(stream, "sha256")

    for _ in range(ROUNDS):
        single.append(rate(model.total_size, hash_one_after_another))
        ours.append(rate(model.total_size, lambda: verified(store, [model], Settings(), True)))
    figures = {
        "cores": os.cpu_count(),
        "one_core_hashlib_mb_per_second": [round(item) for item in single],
        "ours_mb_per_second": [round(item) for item in ours],
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(single), 2),
    }
    record("weights_verify", figures)


def test_nothing_to_do(mirror: Mirror, tmp_path: Path) -> None:
    mirror.bring("many", tmp_path)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        outcome = mirror.bring("many", tmp_path)
        seconds.append(round(time.perf_counter() - began, 4))
        assert (outcome.state, outcome.bytes_hashed) == ("present", 0)
    record("weights_converged", {"files": FILES, "seconds": seconds})


def test_repair_of_one_byte(mirror: Mirror, tmp_path: Path) -> None:
    mirror.bring("large", tmp_path)
    published = Store(tmp_path / "models", tmp_path / "state").published(mirror.models["large"]) / "big"
    published.chmod(0o644)
    with published.open("r+b") as stream:
        stream.seek(LARGE // 2)
        stream.write(bytes([stream.read(1)[0] ^ 1]))
    before, began = mirror.sent(), time.perf_counter()
    outcome = mirror.bring("large", tmp_path)
    figures = {
        "bytes": LARGE,
        "fetched_bytes": outcome.bytes_copied,
        "sent_by_nginx": mirror.sent() - before,
        "seconds": round(time.perf_counter() - began, 1),
    }
    record("weights_repair", figures)
    assert outcome.state == "mended"
    assert outcome.bytes_copied <= 16 * MIB
