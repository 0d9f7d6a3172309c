"""Commands that run beside each other, their output in files: a fixed width, a time limit, nothing left over."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cli.processes import descendants

LOOK = 0.2  # seconds between looks at the children
GRACE = 30.0  # for a child that was told to stop: it may have a host to remove


@dataclass(frozen=True)
class Job:
    """One command. `limit` in seconds; `env` is added to the environment; `xml` is where pytest writes its results."""

    name: str
    argv: tuple[str, ...]
    log: Path
    limit: float
    env: Mapping[str, str]
    xml: Path | None = None


@dataclass(frozen=True)
class JobResult:
    """How a job ended. `rc` is negative for a signal, as in subprocess."""

    job: Job
    rc: int
    seconds: float
    timed_out: bool

    @property
    def ok(self) -> bool:
        """True when it ended by itself and said that all is well."""
        return self.rc == 0 and not self.timed_out


@dataclass
class _Running:
    job: Job
    child: subprocess.Popen[bytes]
    began: float
    told: float | None = None  # when it was told to stop

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def run_jobs(
    jobs: Sequence[Job],
    width: int,
    cwd: Path,
    on_tick: Callable[[Sequence[Job]], None],
    on_end: Callable[[JobResult], None],
) -> list[JobResult]:
    """Runs the jobs, `width` at a time, in order; `on_tick` gets the running ones a few times a second.

    A job over its limit is stopped with all that it started. So are all jobs when this is interrupted.
    """
    waiting, running, done = list(jobs), list[_Running](), list[JobResult]()
    try:
        while waiting or running:
            while waiting and len(running) < width:
                running.append(_start(waiting.pop(0), cwd))
            on_tick([item.job for item in running])
            time.sleep(LOOK)
            for item in [item for item in running if _over(item)]:
                running.remove(item)
                result = JobResult(item.job, item.child.returncode, item.seconds, item.told is not None)
                done.append(result)
                on_end(result)
    except BaseException:
        for item in running:
            _signal(item, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while any(item.child.poll() is None for item in running) and time.monotonic() < deadline:
            time.sleep(LOOK)
        for item in running:
            _signal(item, signal.SIGKILL)
            item.child.wait()
        raise
    return done


def tail_of(log: Path, lines: int) -> list[str]:
    """The last lines of a log."""
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return []


def _start(job: Job, cwd: Path) -> _Running:
    with job.log.open("wb") as log:
        child = subprocess.Popen(
            job.argv,
            cwd=cwd,
            env={**os.environ, **job.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this program alone, which then stops its children in order
        )
    return _Running(job, child, time.monotonic())


def _over(item: _Running) -> bool:
    """True when the job has ended; stops it when its time is up."""
    if item.child.poll() is not None:
        return True
    now = time.monotonic()
    if item.told is None and item.seconds > item.job.limit:
        item.told = now
        _signal(item, signal.SIGTERM)
    elif item.told is not None and now - item.told > GRACE:
        _signal(item, signal.SIGKILL)
    return False


def _signal(item: _Running, number: signal.Signals) -> None:
    """To the job and all below it. SIGKILL goes to the lowest first; a polite signal to all at once is enough."""
    for pid in [*reversed(descendants(item.child.pid)), item.child.pid]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
