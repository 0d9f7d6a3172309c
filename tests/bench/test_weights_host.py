"""Weights on a host that has them: proving all of them again, nothing to do, one byte to mend.

All of it on this machine, without a lab host: .venv/bin/pytest -s tests/bench/test_weights_host.py
REDOUBT_BENCH_REPAIR_MIB sets the size of the file that is mended (10240).
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.models import verified
from ansible.module_utils.artifacts.settling import Settings

from tests.bench.models import FILES, HUGE, MIB, ROUNDS, Measured, Rounds, huge, many
from tests.bench.results import record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Measured, Path]]:
    """A published model of many files, and its store's place."""
    place = tmp_path_factory.mktemp("host")
    with many(place / "mirror") as it:
        it.bring(place)
        yield it, place


def test_proving_all_again(tree: tuple[Measured, Path], tmp_path: Path) -> None:
    it, place = tree
    published = it.store(place).published(it.model)
    (tmp_path / "sums").write_text("".join(f"{item.sha256}  {published / item.path}\n" for item in it.model.files))

    def hash_one_after_another() -> None:
        for entry in it.model.files:
            with (published / entry.path).open("rb") as stream:
                hashlib.file_digest(stream, "sha256")

    def ours() -> None:
        (verdict,) = verified(it.store(place), [it.model], Settings(), True)
        assert verdict["ok"]
        assert verdict["bytes_hashed"] == it.size

    ways: dict[str, Callable[[], object]] = {
        "ours": ours,
        "hashlib, one core": hash_one_after_another,
        "sha256sum -c": lambda: subprocess.run(["sha256sum", "--status", "-c", tmp_path / "sums"], check=True),
    }
    found = Rounds(it.size)
    for _ in range(ROUNDS):
        for name, work in ways.items():
            found.measure(name, work)
    cores = os.cpu_count() or 1
    figures = {
        "cores": cores,
        **found.document(),
        "ours_over_hashlib_on_all_cores": round(
            found.ratios("ours", ["hashlib, one core"])["hashlib, one core"] / cores, 2
        ),
        "ours_over": found.ratios("ours", ["sha256sum -c"]),
    }
    record("weights_verify", figures)


def test_nothing_to_do(tree: tuple[Measured, Path]) -> None:
    it, place = tree
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        outcome = it.bring(place)
        seconds.append(round(time.perf_counter() - began, 4))
        assert (outcome.state, outcome.bytes_hashed) == ("present", 0)
    record("weights_converged", {"files": FILES, "seconds": seconds, "median": statistics.median(seconds)})


def test_one_byte_to_mend(tmp_path: Path) -> None:
    with huge(tmp_path / "mirror") as it:
        it.bring(tmp_path)
        published = it.store(tmp_path).published(it.model) / "big"
        published.chmod(0o644)
        with published.open("r+b") as stream:
            stream.seek(HUGE // 2)
            stream.write(b"\1")
        before, began = it.nginx.total(), time.perf_counter()
        outcome = it.bring(tmp_path)
        figures = {
            "bytes": HUGE,
            "fetched_bytes": outcome.bytes_copied,
            "sent_by_nginx": it.nginx.total() - before,
            "seconds": round(time.perf_counter() - began, 1),
        }
    record("weights_repair", figures)
    assert outcome.state == "mended"
    assert figures["sent_by_nginx"] == outcome.bytes_copied <= 16 * MIB
