"""What is left of a fetch that ended early, and what the next one makes of it: SIGKILL, lost writes, a torn journal."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.fetch.engine import fetch
from ansible.module_utils.fetch.job import Job, Seed
from ansible.module_utils.fetch.journal import Journal, read_journal, write_pieces
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.pieces import BUSY, Cut, piece_size_for
from ansible.module_utils.fetch.sources import Folder, Item
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fault_server import FaultServer, serving
from tests.support.image_archives import payload
from tests.unit.test_fetch_faults import PIECE, assert_right, bring, item, web

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = payload(120 * PIECE + 99, 3)
OTHER = payload(20 * PIECE, 4)
BIG, SECOND = item("big", DATA), item("second", OTHER)
KILLS = 20
CONNECTIONS = 3


def child(server: FaultServer, folder: Path, bandwidth: int) -> subprocess.Popen[str]:
    """Start a fetch in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fetch_child"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    order = {
        "items": [vars(BIG), vars(SECOND)],
        "base": server.base,
        "folder": str(folder),
        "piece": PIECE,
        "limits": {"connections": CONNECTIONS, "bandwidth": bandwidth},
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(order))
    process.stdin.close()
    return process


def test_killed_at_twenty_random_moments_it_fetches_little_twice(tmp_path: Path) -> None:
    dice = random.Random(4)  # noqa: S311 - moments, not secrets
    whole = len(DATA) + len(OTHER)
    with serving({"/tiny/big": DATA, "/tiny/second": OTHER}) as server:
        kills = 0
        for _ in range(KILLS):
            # Killed when the server has sent so many bytes more, wherever the process is then.
            goal = server.total() + dice.randrange(1, whole // KILLS)
            process = child(server, tmp_path, 4 << 20)
            while server.total() < goal and process.poll() is None:
                server.released.wait(0.001)
            kills += process.poll() is None
            process.kill()
            process.wait()
        assert kills > KILLS // 2
        before = server.total()
        process = child(server, tmp_path, 0)
        assert process.stdout is not None
        figures = json.loads(process.stdout.read())
        assert process.wait() == 0
        assert (tmp_path / BIG.sha256).read_bytes() == DATA
        assert (tmp_path / SECOND.sha256).read_bytes() == OTHER
        assert figures["big"]["problems"] == []
        assert server.total() <= whole + kills * CONNECTIONS * PIECE
        assert server.total() > before


def interrupted(folder: Path, server: FaultServer, pieces: int) -> Path:
    """Leave a file of which the first pieces are there and written down; returns its path."""
    path = folder / str(BIG.sha256)
    cut = Cut(BIG.size, PIECE)
    journal = Journal(path.with_name(f"{path.name}.journal"), cut)
    with path.open("wb") as stream:
        stream.truncate(BIG.size)
        for index in range(pieces):
            start, stop = cut.span(index)
            stream.seek(start)
            stream.write(DATA[start:stop])
            journal.add(index, crc(DATA[start:stop]), server.base)
    journal.close()
    return path


def crc(data: bytes) -> int:
    return zlib.crc32(data)


@pytest.fixture
def server() -> Any:
    with serving({"/tiny/big": DATA}) as made:
        yield made


def test_pieces_of_the_journal_are_proved_and_not_fetched_again(tmp_path: Path, server: FaultServer) -> None:
    interrupted(tmp_path, server, 100)
    jobs = bring(tmp_path, [BIG], web(server))
    assert_right(tmp_path, jobs)
    assert jobs["big"].reused == 100 * PIECE
    assert server.total() == len(DATA) - 100 * PIECE


def test_write_that_power_failure_lost_is_found_by_its_crc(tmp_path: Path, server: FaultServer) -> None:
    path = interrupted(tmp_path, server, 100)
    with path.open("r+b") as stream:
        stream.seek(7 * PIECE)
        stream.write(bytes(4096))  # what the file system gives for a block that was never written
        stream.seek(60 * PIECE + 5)
        stream.write(b"!")
    assert_right(tmp_path, bring(tmp_path, [BIG], web(server)))
    assert server.total() == len(DATA) - 98 * PIECE


@pytest.mark.parametrize("torn", [1, 7, 40, 41, 500])
def test_torn_end_of_the_journal_costs_only_its_last_pieces(tmp_path: Path, server: FaultServer, torn: int) -> None:
    path = interrupted(tmp_path, server, 100)
    journal = path.with_name(f"{path.name}.journal")
    os.truncate(journal, journal.stat().st_size - torn)
    assert_right(tmp_path, bring(tmp_path, [BIG], web(server)))
    assert len(DATA) - 100 * PIECE < server.total() < len(DATA) - 80 * PIECE


def test_lines_after_a_torn_one_are_read_by_the_next_run(tmp_path: Path, server: FaultServer) -> None:
    path = interrupted(tmp_path, server, 50)
    journal = path.with_name(f"{path.name}.journal")
    os.truncate(journal, journal.stat().st_size - 3)
    job = Job(BIG, path, [web(server)], PIECE)
    job.open()
    assert job.journal is not None
    job.journal.add(99, 5, "x")
    job.close()
    assert sorted(read_journal(journal, job.cut)) == [*range(49), 99]


def test_journal_about_another_cut_or_file_size_is_not_believed(tmp_path: Path, server: FaultServer) -> None:
    path = interrupted(tmp_path, server, 100)
    journal = path.with_name(f"{path.name}.journal")
    assert len(read_journal(journal, Cut(BIG.size, PIECE))) == 100
    assert read_journal(journal, Cut(BIG.size, 2 * PIECE)) == {}
    assert read_journal(journal, Cut(BIG.size - 1, PIECE)) == {}
    os.truncate(path, 5)
    assert_right(tmp_path, bring(tmp_path, [BIG], web(server)))
    assert server.total() == len(DATA)


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_whatever_is_in_the_journal_it_is_read_without_an_error(tmp_path_factory: Any, noise: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    cut = Cut(100 * PIECE, PIECE)
    journal = Journal(path, cut)
    for index in range(40):
        journal.add(index, index, "https://a b")
    journal.close()
    data = path.read_bytes()
    path.write_bytes(data[:at] + noise + data[at:])
    for index, (found, giver) in read_journal(path, cut).items():
        assert (found, giver) == (index, "https://a b")


def test_repair_fetches_the_damaged_pieces_only(tmp_path: Path, server: FaultServer) -> None:
    damaged = bytearray(DATA)
    damaged[33 * PIECE + 9] ^= 1
    damaged[90 * PIECE] ^= 128
    (tmp_path / "damaged").write_bytes(damaged[:-10])  # and its last piece is cut short
    cut = Cut(BIG.size, PIECE)
    crcs = {index: crc(DATA[slice(*cut.span(index))]) for index in range(cut.count)}
    job = Job(BIG, tmp_path / BIG.sha256, [web(server)], PIECE, Seed(tmp_path / "damaged", crcs))
    fetch([job], Limits(connections=4), lambda count, label: None, lambda _: None)
    assert_right(tmp_path, {"big": job})
    assert server.total() == 2 * PIECE + cut.length(cut.count - 1)


def test_crcs_that_lie_do_not_make_a_wrong_file_right(tmp_path: Path, server: FaultServer) -> None:
    damaged = bytearray(DATA)
    damaged[5] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    cut = Cut(BIG.size, PIECE)
    crcs = {index: crc(bytes(damaged[slice(*cut.span(index))])) for index in range(cut.count)}
    job = Job(BIG, tmp_path / BIG.sha256, [web(server)], PIECE, Seed(tmp_path / "damaged", crcs))
    fetch([job], Limits(connections=4), lambda count, label: None, lambda _: None)
    assert_right(tmp_path, {"big": job})


def test_crcs_of_a_proved_file_are_kept_and_read(tmp_path: Path) -> None:
    cut = Cut(BIG.size, PIECE)
    write_pieces(tmp_path / "ab/pieces", cut, {index: index * 7 for index in range(cut.count)})
    assert {index: found for index, (found, _) in read_journal(tmp_path / "ab/pieces", cut).items()} == {
        index: index * 7 for index in range(cut.count)
    }


def test_full_disk_is_told_and_the_next_run_goes_on(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.pwrite, [30 * PIECE]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(Refusal, match=rf"tiny/big: no space left below .* the file has {len(DATA)} bytes"):
        bring(tmp_path, [BIG], web(server))
    monkeypatch.undo()
    jobs = bring(tmp_path, [BIG], web(server))
    assert_right(tmp_path, jobs)
    assert jobs["big"].reused >= 20 * PIECE


def test_bytes_are_reserved_before_any_arrives(tmp_path: Path) -> None:
    job = Job(BIG, tmp_path / "x", [], PIECE)
    job.open()
    found = (tmp_path / "x").stat()
    job.close()
    assert found.st_size == BIG.size
    assert found.st_blocks * 512 >= BIG.size


@given(st.integers(0, 10_000), st.integers(1, 700))
def test_pieces_cover_a_file_without_gap_or_overlap(size: int, piece: int) -> None:
    cut = Cut(size, piece)
    spans = [cut.span(index) for index in range(cut.count)]
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert all(0 < stop - start <= piece for start, stop in spans) or size == 0


def test_pieces_are_larger_in_huge_files_only() -> None:
    assert piece_size_for(10 << 30) == 16 << 20
    assert piece_size_for(200 << 30) == 64 << 20


def test_huge_sparse_file_needs_little_memory(tmp_path: Path) -> None:
    """A file of 1 GiB within 192 MiB of data."""
    size = 1 << 30
    (tmp_path / "medium/tiny").mkdir(parents=True)
    with (tmp_path / "medium/tiny/huge").open("wb") as stream:
        stream.truncate(size)
    code = (
        "import resource,sys,hashlib;"
        "import tests.support.fetch_child as c;from pathlib import Path;"
        "from ansible.module_utils.fetch.sources import Folder;"
        "resource.setrlimit(resource.RLIMIT_DATA,(192<<20,192<<20));"
        "root=Path(sys.argv[1]);size=int(sys.argv[2]);"
        "job=c.Job(c.Item('tiny','a'*40,'huge',size,sys.argv[3]),root/'x',[Folder(root/'medium')]);"
        "c.fetch([job],c.Limits(),lambda n,l:None,lambda j:None);"
        # not ru_maxrss, which a process inherits from the one that started it
        "peak=next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(job.problems,peak)"
    )
    digest = hashlib.sha256()
    block = bytes(16 << 20)
    for _ in range(size // len(block)):
        digest.update(block)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(size), digest.hexdigest()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    problems, kilobytes = done.stdout.rsplit(" ", 1)
    assert problems == "[]"
    assert int(kilobytes) < 160 << 10


def test_folder_source_is_taken_up_too(tmp_path: Path, server: FaultServer) -> None:
    interrupted(tmp_path, server, 100)
    (tmp_path / "medium/tiny").mkdir(parents=True)
    (tmp_path / "medium/tiny/big").write_bytes(DATA)
    jobs = bring(tmp_path, [BIG], Folder(tmp_path / "medium"))
    assert_right(tmp_path, jobs)
    assert jobs["big"].received == len(DATA) - 100 * PIECE


def test_item_has_a_label() -> None:
    assert Item("m", "r", "a/b", 1, "0").label == "m/a/b"


def test_journal_has_a_piece_before_anybody_may_judge_the_file(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(BIG, tmp_path / BIG.sha256, [web(server)], PIECE)
    states = []
    real = Journal.add

    def add(journal: Journal, index: int, crc: int, giver: str) -> None:
        states.append(job.pieces.state[index])
        real(journal, index, crc, giver)

    monkeypatch.setattr(Journal, "add", add)
    fetch([job], Limits(), lambda count, label: None, lambda _: None)
    assert states == [BUSY] * job.cut.count
