"""Weights: fetching against the usual tools from one static Nginx on loopback.

All of it on this machine, without a lab host: .venv/bin/pytest -s tests/bench/test_weights.py
REDOUBT_BENCH_MIB sets the size of the large file (4096). Ours always proves each byte; of the others it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.models import COMMIT, FILES, Measured, large, many, quietly, race
from tests.bench.results import record
from tests.support import programs
from tests.support.peers import HubClient, aria2, curl, get_url

pytestmark = pytest.mark.slow
WIRE = "limit_rate 32m;"  # of each connection


def hub_client(measured: Measured, place: Path, proof: bool) -> None:
    """`hf download`, and `hf cache verify` where proof is wanted."""
    client = HubClient(measured.nginx.base, place / "hf")
    assert client.download(measured.model.repo, COMMIT, place / "tree").returncode == 0
    if proof:
        assert client.verify(measured.model.repo, COMMIT, place / "tree").returncode == 0


def module(measured: Measured, place: Path, sha256: str = "") -> None:
    """`ansible.builtin.get_url`, with a checksum where proof is wanted."""
    command, environment = get_url(measured.url("big"), place / "big", place / "tmp", sha256)
    quietly(command, env=environment)


def test_one_large_file(tmp_path: Path) -> None:
    with large(tmp_path / "mirror") as it:
        url, sha256 = it.url("big"), it.model.files[0].sha256
        without: dict[str, Callable[[Path], object]] = {
            "curl": lambda place: quietly(curl(url, place / "big")),
            "aria2c -x8": lambda place: quietly(aria2(url, place / "big")),
            "get_url": lambda place: module(it, place),
            "hf download": lambda place: hub_client(it, place, False),
        }
        proved: dict[str, Callable[[Path], object]] = {
            "aria2c -x8 --checksum": lambda place: quietly(aria2(url, place / "big", f"--checksum=sha-256={sha256}")),
            "get_url checksum": lambda place: module(it, place, sha256),
            "hf download + cache verify": lambda place: hub_client(it, place, True),
        }
        found = race(it.size, tmp_path / "place", {"ours": it.bring, **without, **proved})
    figures = {
        "bytes": it.size,
        **found.document(),
        "ours_with_proof_over_each_without": found.ratios("ours", list(without)),
        "ours_with_proof_over_each_with": found.ratios("ours", list(proved)),
    }
    record("weights_fetch_large", figures)


def test_one_large_file_where_the_wire_is_the_limit(tmp_path: Path) -> None:
    """Eight connections of 32 MiB/s: what is left of the cost of the proof when the processors are not all busy."""
    with large(tmp_path / "mirror", WIRE) as it:
        ways: dict[str, Callable[[Path], object]] = {
            "ours": it.bring,
            "aria2c -x8": lambda place: quietly(aria2(it.url("big"), place / "big")),
        }
        found = race(it.size, tmp_path / "place", ways)
    record("weights_fetch_wire", {**found.document(), "ratio": found.ratios("ours", ["aria2c -x8"])})


def test_tree_of_many_files(tmp_path: Path) -> None:
    with many(tmp_path / "mirror") as it:
        names = [entry.path for entry in it.model.files]

        def curl_list(place: Path) -> None:
            lines = "".join(f'url = "{it.url(name)}"\noutput = "{place / name}"\n' for name in names)
            quietly([programs.client("curl", "curl"), "-sS", "-f", "-K", "-"], input=lines, text=True)

        def aria2_list(place: Path) -> None:
            lines = "".join(f"{it.url(name)}\n  out={name}\n" for name in names)
            command = [programs.client("aria2c", "aria2"), "--no-conf", "-q", "-j8", f"--dir={place}", "-i", "-"]
            quietly(command, input=lines, text=True)

        without: dict[str, Callable[[Path], object]] = {
            "curl, one connection kept": curl_list,
            "aria2c -j8": aria2_list,
            "hf download": lambda place: hub_client(it, place, False),
        }
        found = race(it.size, tmp_path / "place", {"ours": it.bring, **without})
    figures = {"files": FILES, "bytes": it.size, **found.document()}
    record("weights_fetch_many", {**figures, "ours_with_proof_over": found.ratios("ours", list(without))})
