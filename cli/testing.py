"""`test`: everything that CI runs, tier by tier, with a summary."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from docker.errors import DockerException
from rich.console import Console
from rich.status import Status
from rich.table import Table

from cli.jobs import Job, JobResult, run_jobs, tail_of
from cli.junit import Case, Counts, counts_of
from cli.playbooks import UsageError
from cli.processes import INTERRUPTED
from cli.progress import report_for
from cli.runs import ROOT, run_folder, shown
from cli.terminal import restored_terminal
from cli.tiers import NEEDS_LAB, WIDTHS, Choice, choose, jobs
from cli.views import HEARTBEAT, clock, is_live
from lab import engine, hosts, images
from lab.errors import LabError

TEST_RESULT = re.compile(r"\b(PASSED|FAILED|SKIPPED|ERROR|XFAIL)\b")
TAIL = 60
#: What the tests' own hosts are called; others are not touched.
TEST_HOSTS = ("molecule-", "e2e", "bench")


@dataclass
class TierResult:
    """What one tier came to."""

    tier: str
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)


def test(options: argparse.Namespace, console: Console) -> int:
    """The verb; its exit code."""
    try:
        choices = choose(options.only, quick=options.quick, slow=options.slow)
        with run_folder("test") as folder, restored_terminal():
            planned = [
                (choice, jobs(choice, ROOT, folder, slow=options.slow, expression=options.expression))
                for choice in choices
            ]
            return _test(planned, folder, console)
    except UsageError as error:
        console.print(f"redoubt test: {error}", style="red")
        return 2
    except KeyboardInterrupt:
        console.print("redoubt test: interrupted; what the tests had started is stopped")
        return INTERRUPTED


def _test(planned: Sequence[tuple[Choice, list[Job]]], folder: Path, console: Console) -> int:
    start = time.monotonic()
    results: list[TierResult] = []
    lab_ok: bool | None = None
    wants_lab = any(choice.tier in NEEDS_LAB and tier_jobs for choice, tier_jobs in planned)
    with _lab_left_as_found(console) if wants_lab else nullcontext():
        for choice, tier_jobs in planned:
            # Before the unit tests too: they run promtool and Prometheus out of the lab's images where there are some.
            if wants_lab and choice.tier != "lint" and lab_ok is None:
                results.append(_prepare_lab(console))
                lab_ok = results[-1].counts.failed == 0
            if choice.tier in NEEDS_LAB and lab_ok is False:
                console.print(f"{choice.tier}: not run, because the lab could not be made", style="red")
                continue
            results.append(_tier(choice, tier_jobs, console, start))
    total = sum((result.counts for result in results), Counts())
    console.print()
    console.print(_table(results, time.monotonic() - start))
    for result in results:
        for text in result.skipped:
            console.print(f"skipped: {text}")
    console.print(f"logs: {shown(folder)}")
    if not total.total:
        console.print("nothing was run", style="red")
    console.print(total.line())
    return 1 if total.failed or not total.passed else 0


def _tier(choice: Choice, tier_jobs: list[Job], console: Console, begin: float) -> TierResult:
    result = TierResult(choice.tier)
    start = time.monotonic()
    if not tier_jobs:
        console.print(f"{choice.tier}: nothing to run")
        return result
    view = _TierView(choice.tier, console, begin)

    def ended(done: JobResult) -> None:
        view.tick([done.job])
        counts, cases = _counts(done)
        result.counts += counts
        result.skipped += [
            f"{choice.tier}: {case.name} ({case.message})" for case in cases if case.outcome == "skipped"
        ]
        view.ended(done, counts, cases)

    with view:
        run_jobs(tier_jobs, WIDTHS[choice.tier], ROOT, view.tick, ended)
    result.seconds = time.monotonic() - start
    return result


def _counts(done: JobResult) -> tuple[Counts, list[Case]]:
    """Each of pytest's tests counts; any other job counts as one."""
    how = f"stopped after {done.job.limit:.0f} s" if done.timed_out else f"exit code {done.rc}"
    if done.job.xml is not None:
        counts, cases = counts_of(done.job.xml, done.rc)
        return counts, [*cases, Case(done.job.name, "failed", how)] if done.timed_out else cases
    if done.ok:
        return Counts(passed=1), []
    return Counts(failed=1), [Case(done.job.name, "failed", how)]


class _TierView:
    """One line that counts on a terminal; on a pipe a line per job and a sign of life now and then.

    The tests of e2e and bench take long and are few: each is shown when it ends.
    """

    def __init__(self, tier: str, console: Console, start: float) -> None:
        self._tier, self._console = tier, console
        self._start, self._said = start, time.monotonic()
        self._status = Status(tier, console=console) if is_live(console) else None
        self._read: dict[Path, int] = {}
        self._seen: dict[str, int] = {}

    def __enter__(self) -> _TierView:
        if self._status:
            self._status.start()
        else:
            self._print(f"{self._tier} ...")
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def tick(self, running: Sequence[Job]) -> None:
        """Look at the logs; say what goes on."""
        for job in running:
            self._follow(job)
        text = f"{self._tier} | {', '.join(job.name for job in running)}"
        if self._seen:
            text += " | " + ", ".join(f"{number} {name.lower()}" for name, number in sorted(self._seen.items()))
        now = time.monotonic()
        if self._status:
            self._status.update(f"{text} | {clock(now - self._start)}")
        elif now - self._said >= HEARTBEAT:
            self._print(text)

    def ended(self, done: JobResult, counts: Counts, cases: Sequence[Case]) -> None:
        """One job is over: a line, and for one that failed the end of its log."""
        name = done.job.name if done.job.name == self._tier else f"{self._tier} {done.job.name}"
        self._print(f"{name}: {counts.line()} in {done.seconds:.1f} s", "green" if not counts.failed else "bold red")
        if not counts.failed:
            return
        for case in cases:
            if case.outcome == "failed":
                self._console.print(f"  failed: {case.name}: {case.message.splitlines()[0] if case.message else ''}")
        self._console.print(f"  the end of {shown(done.job.log)}:")
        for line in tail_of(done.job.log, TAIL):
            self._console.print(f"    {line}")

    def _follow(self, job: Job) -> None:
        """Counts pytest's results in what was added to the log, and shows them one by one where they are slow."""
        with suppress(OSError), job.log.open("rb") as handle:
            handle.seek(self._read.get(job.log, 0))
            added = handle.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._read[job.log] = self._read.get(job.log, 0) + len(whole)
            for line in whole.decode("utf-8", "replace").splitlines():
                found = TEST_RESULT.search(line) if "::" in line else None
                if found and not line.startswith(("FAILED ", "ERROR ", "SKIPPED ")):  # those repeat in the summary
                    self._seen[found[1]] = self._seen.get(found[1], 0) + 1
                    if self._tier in ("e2e", "bench"):
                        self._print(line)

    def _print(self, text: str, style: str = "") -> None:
        self._said = time.monotonic()
        self._console.print(f"[{clock(self._said - self._start)}] {text}", style=style)


def _prepare_lab(console: Console) -> TierResult:
    """The lab's images, built once before the tiers that need them."""
    start = time.monotonic()
    try:
        with report_for(console) as report:
            engine.ensure(report)
            images.build(report, images.TESTS)
    except (LabError, DockerException) as error:
        console.print(f"lab: {error}", style="bold red")
        return TierResult("lab", Counts(failed=1), time.monotonic() - start)
    return TierResult("lab", Counts(), time.monotonic() - start)


@contextmanager
def _lab_left_as_found(console: Console) -> Iterator[None]:
    """Hosts that the tests made go; those that were there, and an engine that ran, stay."""
    had_engine = engine.connect() is not None
    before = {host.name for host in hosts.status()}
    try:
        yield
    finally:
        try:
            for host in [] if os.environ.get("REDOUBT_KEEP") else hosts.status():
                if host.name not in before and host.name.startswith(TEST_HOSTS):
                    hosts.down(host.name)
            if not had_engine and os.environ.get("CI"):
                with report_for(console) as report:
                    engine.stop(report)
        except (LabError, DockerException) as error:
            console.print(f"lab: could not clean up: {error}", style="yellow")


def _table(results: Sequence[TierResult], seconds: float) -> Table:
    table = Table("tier", box=None, pad_edge=False)
    for name in ("passed", "failed", "skipped", "seconds"):
        table.add_column(name, justify="right")
    for result in results:
        counts = result.counts
        numbers = (str(counts.passed), str(counts.failed), str(counts.skipped), f"{result.seconds:.1f}")
        table.add_row(result.tier, *numbers, style="red" if counts.failed else "")
    total = sum((result.counts for result in results), Counts())
    table.add_row("total", str(total.passed), str(total.failed), str(total.skipped), f"{seconds:.1f}")
    return table
