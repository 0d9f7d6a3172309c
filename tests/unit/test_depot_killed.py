"""A depot whose publishing is killed: what is served is the old view or the new one, and the next run ends it."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer
from ansible.module_utils.lock.parts import parts

from tests.support.depots import LockMaker, small

# What changes a file system, as Python's audit events name it; a write to an open file follows one of these.
STEPS = ("os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "open", "os.truncate")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where that can be: what counts here is the order of the steps, not that they reach a disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of its own is made there
    with TemporaryDirectory(prefix="depot-", dir=memory) as folder:
        yield Path(folder)


def fill(depot: Depot, made: LockMaker) -> dict[str, Any]:
    lock = made.lock()
    for sha256, data in made.contents.items():
        depot.add_blob(io.BytesIO(data), sha256, len(data))
    return lock


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before its step number `step`; tell whether it was."""
    child = os.fork()
    if not child:
        left = [step]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in STEPS or (event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
                return
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def served(depot: Depot, locks: list[dict[str, Any]]) -> int:
    """Return which of the locks is served, every part of it in its place with its bytes."""
    view = (depot.root / "sites/bank-north").resolve()
    number = [lock["digest"].partition(":")[2][:12] for lock in locks].index(view.name)
    for part in parts(locks[number]):
        assert os.stat(view / part.path).st_ino == os.stat(depot.blobs.path(part.sha256)).st_ino, part.path
    assert (view / "packages/debian-13-amd64/Release").stat().st_size > 100
    assert (view / "python/simple/index.html").stat().st_size > 50
    return number


def two_locks(depot: Depot) -> list[dict[str, Any]]:
    second = small(serial=2)
    second.package("jq", "1.7", b"jq")
    return [fill(depot, small()), fill(depot, second)]


def test_killed_at_every_step_of_publishing(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "depot", Signer(tmp_path / "no-key"), patience=0)
    depot.prepare()
    locks = two_locks(depot)
    depot.publish(locks[0])
    seen, step = set(), 0
    while True:
        step += 1
        was_killed = killed_at(step, lambda: depot.publish(locks[1]))
        number = served(depot, locks)
        in_force = depot.lock("bank-north")
        assert in_force in locks, "the lock in force is broken"
        seen.add((number, locks.index(in_force)))
        if not was_killed:
            break
        # Collecting between the two, by whomever, takes nothing that is served or on its way.
        if step % 3 == 0:
            depot.collect_garbage()
            served(depot, locks)
        depot.publish(locks[1])
        assert depot.verify(deep=True) == [], step
        depot.publish(locks[0])
    assert step > 40, "it did less than a view takes: are the steps seen?"
    # Before the switch, between the switch and the commit, after it.
    assert seen == {(0, 0), (1, 0), (1, 1)}


def test_a_run_that_died_after_the_switch_is_ended_by_the_next_one_whatever_it_is_for(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "depot", Signer(tmp_path / "no-key"), patience=0)
    depot.prepare()
    locks = two_locks(depot)
    depot.publish(locks[0])
    step = 0
    while served(depot, locks) == 0:
        step += 1
        assert killed_at(step, lambda: depot.publish(locks[1]))
    assert depot.lock("bank-north") == locks[0]
    assert any(fault.path == "sites/bank-north" and fault.kind == "stale" for fault in depot.verify(deep=False))
    assert depot.collect_garbage() == 0
    assert depot.lock("bank-north") == locks[1] and depot.records.previous("bank-north") == locks[0]
    assert depot.verify(deep=True) == []


@pytest.mark.parametrize("size", [0, 9_000_000])
def test_killed_while_bytes_come_in(tmp_path: Path, size: int) -> None:
    depot = Depot(tmp_path / "depot", Signer(tmp_path / "no-key"), patience=0)
    depot.prepare()
    made = LockMaker()
    figures = made.keep(os.urandom(size))
    data = made.contents[figures["sha256"]]
    step = 0
    while True:
        step += 1
        was_killed = killed_at(step, lambda: depot.add_blob(io.BytesIO(data), figures["sha256"], size))
        blob = depot.blobs.path(figures["sha256"])
        assert not blob.exists() or blob.read_bytes() == data
        if not was_killed:
            break
        blob.unlink(missing_ok=True)
    assert blob.read_bytes() == data
    assert step > 3
    depot.collect_garbage()
    assert list(depot.blobs.partial.iterdir()) == [], "halves of files stay for ever"
