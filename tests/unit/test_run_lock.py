"""One run at a time on a host: the next one waits for what a killed control process left at work."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from ansible.module_utils.run_lock import Busy, only_run


def _hold(path: Path, taken: Event, release: Event) -> None:
    with only_run(path, "it", 0):
        taken.set()
        release.wait(60)


def _holder(path: Path) -> tuple[ForkProcess, Event]:
    context = multiprocessing.get_context("fork")
    taken, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, taken, release))
    process.start()
    assert taken.wait(30)
    return process, release


def test_a_run_waits_for_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    process, release = _holder(path)
    order: list[str] = []

    def let_go() -> None:
        time.sleep(0.5)
        order.append("first ends")
        release.set()

    thread = threading.Thread(target=let_go)
    thread.start()
    with only_run(path, "it", 60):
        order.append("second begins")
    thread.join()
    process.join()
    assert order == ["first ends", "second begins"]


def test_patience_ends_with_the_name_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    process, release = _holder(path)
    try:
        with (
            pytest.raises(Busy, match=rf"another run \(process {process.pid} of .*\) is working on the models") as busy,
            only_run(path, "the models", 0.3),
        ):
            pytest.fail("two runs at once")
        assert re.fullmatch(
            rf"process {process.pid} of \S+, since 2\d{{3}}-\d\d-\d\dT\d\d:\d\d:\d\dZ: it", busy.value.holder
        )
    finally:
        release.set()
        process.join()


def test_a_killed_run_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    process, _ = _holder(path)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with only_run(path, "it", 0):
        assert path.read_text().splitlines()[0] == str(os.getpid())


def test_holder_that_has_not_written_yet(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with only_run(path, "it", 0):
        path.write_text("")
        with pytest.raises(Busy) as busy, only_run(path, "it", 0):
            pytest.fail("two runs at once")
    assert busy.value.holder == "process ?"
