"""Fetching from a server that does everything wrong: the bytes come right, or the reason is told."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.fetch.engine import fetch
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.job import Job
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.sources import Folder, Item
from ansible.module_utils.fetch.web import Web

from tests.support.fault_server import Asked, Fault, FaultServer, Rule, always, first, serving
from tests.support.image_archives import payload

PIECE = 64 << 10
DATA = payload(10 * PIECE + 1234, 1)
SMALL = payload(5000, 2)
TIMEOUT = 20.0  # seconds, where nothing is to be late
SHORT = 0.4


def item(path: str, data: bytes) -> Item:
    return Item("tiny", "a" * 40, path, len(data), hashlib.sha256(data).hexdigest())


BIG_ITEM = item("big", DATA)
SMALL_ITEM = item("small", SMALL)
FILES = {"/tiny/big": DATA, "/tiny/small": SMALL}


def bring(folder: Path, items: list[Item], *sources: Any, **limits: Any) -> dict[str, Job]:
    """Fetch; returns the jobs by path."""
    jobs = [Job(one, folder / one.sha256, sources, PIECE) for one in items]
    settings = {"connections": 4, "retries": 4, "first_pause": 0.01, "timeout": TIMEOUT, **limits}
    done: list[Job] = []
    fetch(jobs, Limits(**settings), lambda count, label: None, done.append)
    assert len(done) == len(jobs)
    return {job.item.path: job for job in done}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving(FILES) as made:
        yield made


def web(server: FaultServer, timeout: float = TIMEOUT) -> Web:
    return Web(server.base, Network(timeout=timeout))


def assert_right(folder: Path, jobs: dict[str, Job]) -> None:
    for job in jobs.values():
        assert job.problems == []
        assert hashlib.sha256((folder / job.item.sha256).read_bytes()).hexdigest() == job.item.sha256


def test_pieces_come_over_several_connections_and_each_byte_once(tmp_path: Path, server: FaultServer) -> None:
    jobs = bring(tmp_path, [BIG_ITEM, SMALL_ITEM], web(server))
    assert_right(tmp_path, jobs)
    assert server.total() == len(DATA) + len(SMALL)
    assert {asked.range for asked in server.asked if asked.path == "/tiny/big"} == {
        (start, min(start + PIECE, len(DATA))) for start in range(0, len(DATA), PIECE)
    }
    assert server.connections <= 4  # kept, not made anew for each piece


@pytest.mark.parametrize(
    ("rule", "timeout"),
    [
        (first(3, Fault(cut_after=1000)), TIMEOUT),
        (first(3, Fault(stall_after=3000)), SHORT),
        (first(2, Fault(status=503)), TIMEOUT),
        (first(2, Fault(status=429, headers={"Retry-After": "0"})), TIMEOUT),
        (first(2, Fault(status=500)), TIMEOUT),
        (first(2, Fault(cut_after=0)), TIMEOUT),
    ],
    ids=["cut", "stalled", "503", "429", "500", "cut at once"],
)
def test_what_passes_is_waited_for_and_no_byte_comes_twice(
    tmp_path: Path, server: FaultServer, rule: Rule, timeout: float
) -> None:
    server.rule = rule
    plain = {status: len(b"what a server says") for status in (500, 503, 429)}
    jobs = bring(tmp_path, [BIG_ITEM], web(server, timeout))
    assert_right(tmp_path, jobs)
    assert jobs["big"].received == len(DATA)
    if timeout == TIMEOUT:  # a busy machine may be late beyond the short one, too
        assert server.total() <= len(DATA) + 3 * max(plain.values())


@pytest.mark.parametrize("chunked", [False, True])
def test_server_that_ignores_ranges_sends_the_file_once(tmp_path: Path, server: FaultServer, chunked: bool) -> None:
    server.rule = always(Fault(ignore_range=True, chunked=chunked))
    jobs = bring(tmp_path, [BIG_ITEM, SMALL_ITEM], web(server), connections=1)
    assert_right(tmp_path, jobs)
    assert jobs["big"].received == len(DATA)


def test_server_that_ignores_ranges_and_breaks_is_asked_again(tmp_path: Path, server: FaultServer) -> None:
    cuts = [3 * PIECE, 6 * PIECE]

    def rule(asked: Asked) -> Fault:
        return Fault(ignore_range=True, cut_after=cuts.pop(0) if cuts else None)

    server.rule = rule
    assert_right(tmp_path, bring(tmp_path, [BIG_ITEM], web(server), connections=3))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=404), "the server answers 404"),
        (Fault(status=403), "the server answers 403 Forbidden; is a token needed, or a new address?"),
        (Fault(status=416), "the server answers 416"),
        (Fault(stated_size=len(DATA) + 1), f"expected {len(DATA)} bytes, the server offers {len(DATA) + 1}"),
        (Fault(ignore_range=True, body=b"<html>log in</html>"), f"expected {len(DATA)} bytes, the server offers 19"),
        (Fault(shift=5), "asked for bytes "),
        (Fault(status=206), "answers 206 without saying which bytes"),
        (Fault(headers={"Content-Encoding": "gzip"}), "sends the file encoded (gzip)"),
        (Fault(body=payload(len(DATA), 9)), f"expected sha256 {BIG_ITEM.sha256}, found "),
        (Fault(cut_after=10), ": the connection was closed (4 times in a row)"),
        (Fault(status=503), "the server answers 503 Service Unavailable (4 times in a row)"),
        (Fault(status=503, headers={"Retry-After": "7200"}), "it asks to wait 7200 s"),
        (Fault(status=302, headers={"Location": "ftp://127.0.0.1/x"}), "not an http(s) address"),
        (Fault(drip=True), "slower than 1024 bytes a second (4 times in a row)"),
    ],
)
def test_what_does_not_pass_is_told_and_the_next_source_is_asked(
    tmp_path: Path, server: FaultServer, fault: Fault, said: str
) -> None:
    server.rule = always(fault)
    jobs = bring(tmp_path, [BIG_ITEM], web(server), timeout=0.1)
    (problem,) = jobs["big"].problems
    assert problem.startswith(f"{server.base}/tiny/big: ")
    assert said in problem

    with serving(FILES) as good:
        jobs = bring(tmp_path, [BIG_ITEM], web(server), web(good), timeout=0.1)
        assert_right(tmp_path, jobs)


def test_endless_redirect_is_told(tmp_path: Path, server: FaultServer) -> None:
    server.rule = always(Fault(status=302, headers={"Location": "/again"}))
    jobs = bring(tmp_path, [SMALL_ITEM], web(server))
    assert "redirects more than" in jobs["small"].problems[0]


@pytest.mark.parametrize("seed", range(10))
def test_one_bit_flipped_in_transit_is_caught_and_the_source_is_named(
    tmp_path: Path, server: FaultServer, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - offsets, not secrets
    flipped = bytearray(DATA)
    flipped[chance.randrange(len(DATA))] ^= 1 << chance.randrange(8)
    server.files["/tiny/big"] = bytes(flipped)
    with serving(FILES) as good:
        jobs = bring(tmp_path, [BIG_ITEM], web(server), web(good))
        assert_right(tmp_path, jobs)
        assert good.total() == len(DATA)
    (tmp_path / BIG_ITEM.sha256).unlink()
    jobs = bring(tmp_path, [BIG_ITEM], web(server))
    assert jobs["big"].problems[0].startswith(f"{server.base}/tiny/big: expected sha256 ")


def test_what_a_dying_source_gave_is_kept_for_the_next_one(tmp_path: Path, server: FaultServer) -> None:
    def rule(asked: Asked) -> Fault | None:
        return Fault(status=404) if asked.range and asked.range[0] >= 5 * PIECE else None

    server.rule = rule
    with serving(FILES) as good:
        jobs = bring(tmp_path, [BIG_ITEM], web(server), web(good), connections=1)
        assert_right(tmp_path, jobs)
        assert good.total() == len(DATA) - 5 * PIECE


def test_wrong_bytes_of_a_mixed_file_are_fetched_again_from_one_source(tmp_path: Path, server: FaultServer) -> None:
    def rule(asked: Asked) -> Fault | None:
        return Fault(status=404) if asked.range and asked.range[0] >= 5 * PIECE else None

    server.rule = rule
    server.files["/tiny/big"] = payload(len(DATA), 5)
    with serving(FILES) as good:
        assert_right(tmp_path, bring(tmp_path, [BIG_ITEM], web(server), web(good), connections=1))


def test_file_that_changes_on_the_server_is_fetched_once_more(tmp_path: Path, server: FaultServer) -> None:
    count = [0]

    def rule(asked: Asked) -> Fault | None:
        count[0] += 1
        if count[0] <= 4:
            return Fault(headers={"ETag": '"zero"'}, body=payload(len(DATA), 6))
        return None

    server.rule = rule
    assert_right(tmp_path, bring(tmp_path, [BIG_ITEM], web(server), connections=2))


def test_dead_source_is_not_tried_for_each_file(tmp_path: Path) -> None:
    names = [f"file-{number}" for number in range(40)]
    files = {name: payload(3000, number) for number, name in enumerate(names)}
    with serving({f"/tiny/{name}": data for name, data in files.items()}) as gone:
        base = gone.base
        gone.rule = always(Fault(status=502))
        with serving(gone.files) as good:
            jobs = bring(tmp_path, [item(name, data) for name, data in files.items()], Web(base), web(good))
            assert_right(tmp_path, jobs)
        assert len(gone.asked) < 40
    jobs = bring(tmp_path, [SMALL_ITEM], Web(base))
    assert (
        "Connection refused; is the address right and reachable from this host? (4 times" in jobs["small"].problems[0]
    )


def test_empty_file(tmp_path: Path, server: FaultServer) -> None:
    server.files["/tiny/empty"] = b""
    assert_right(tmp_path, bring(tmp_path, [item("empty", b"")], web(server)))


def test_more_bytes_than_the_lock_says(tmp_path: Path, server: FaultServer) -> None:
    server.rule = always(Fault(chunked=True, ignore_range=True, body=SMALL + b"x"))
    jobs = bring(tmp_path, [SMALL_ITEM], web(server))
    assert "expected 5000 bytes, found more" in jobs["small"].problems[0]


def test_folder_is_read_in_pieces_and_links_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "medium"
    (root / "tiny").mkdir(parents=True)
    (root / "tiny/big").write_bytes(DATA)
    (tmp_path / "out").mkdir()
    assert_right(tmp_path / "out", bring(tmp_path / "out", [BIG_ITEM], Folder(root)))
    (tmp_path / "out" / BIG_ITEM.sha256).unlink()
    (root / "tiny/big").rename(root / "elsewhere")
    (root / "tiny/big").symlink_to(root / "elsewhere")
    jobs = bring(tmp_path / "out", [BIG_ITEM], Folder(root))
    assert "is a symbolic link" in jobs["big"].problems[0]


def test_server_that_is_known_to_ignore_ranges_is_asked_once_for_each_file(tmp_path: Path, server: FaultServer) -> None:
    second = payload(len(DATA) - 5, 4)
    server.files["/tiny/second"] = second
    server.rule = always(Fault(ignore_range=True))
    assert_right(tmp_path, bring(tmp_path, [BIG_ITEM, item("second", second)], web(server), lanes=1))
    assert len([asked for asked in server.asked if asked.path == "/tiny/second"]) == 1


def test_half_a_piece_of_one_source_is_not_completed_by_another(tmp_path: Path, server: FaultServer) -> None:
    """Else the second one would be blamed for what the first one gave."""
    faults = [Fault(body=payload(len(DATA), 9), cut_after=PIECE // 2)]
    server.rule = lambda asked: faults.pop() if faults else Fault(status=404)
    with serving(FILES) as good:
        assert_right(tmp_path, bring(tmp_path, [BIG_ITEM], web(server), web(good), connections=1))
        assert good.total() == len(DATA)
