"""The lab's reports: a live list on a terminal, lines on a pipe."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from cli.views import SLOW, clock, is_live
from lab.report import PlainReport, Report

BYTES = ("B", "byte", "bytes")


class TerminalReport:
    """A lab.report.Report for a terminal: running phases with seconds and amounts, finished ones above them.

    Several threads may use it at once; each has its own phases.
    """

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._local = threading.local()

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show the phase while the body runs; keep a line of it afterwards."""
        stack: list[TaskID] = self._local.__dict__.setdefault("stack", [])
        began = time.monotonic()
        task = self._progress.add_task("  " * len(stack) + text, total=None, unit="")
        stack.append(task)
        failed = True
        try:
            yield
            failed = False
        finally:
            stack.remove(task)
            self._progress.remove_task(task)
            seconds = time.monotonic() - began
            mark = Text("✗ ", style="red") if failed else Text("✓ ", style="green")
            if failed or seconds >= 0.5:
                self._console.print(Text("  " * len(stack)) + mark + Text(f"{text}  {seconds:.1f} s"))

    def step(self, text: str) -> None:
        """Print the line."""
        self._console.print(Text(f"  {text}", style="dim"))

    def progress(self, done: int, total: int, unit: str) -> None:
        """Move the bar of the innermost phase of this thread."""
        stack: list[TaskID] = self._local.__dict__.get("stack", [])
        if stack:
            self._progress.update(stack[-1], completed=done, total=total or None, unit=unit)


class _Amount(ProgressColumn):
    """Done of total, rate and time left, as far as they are known."""

    def render(self, task: Task) -> Text:
        """One phase's amounts."""
        return Text(amounts(task.completed, task.total, task.fields.get("unit", ""), task.speed), style="dim")


class _Seconds(ProgressColumn):
    """Seconds since the phase began, from the sixth on."""

    def render(self, task: Task) -> Text:
        """One phase's clock."""
        elapsed = task.elapsed or 0.0
        return Text(clock(elapsed) if elapsed > SLOW else "", style="dim")


def amounts(done: float, total: float | None, unit: str, speed: float | None) -> str:
    """`120.0 of 400.0 MB, 40.0 MB/s, 7 s left` or `3 of 7 files`; empty when nothing is known."""
    if not done and not total:
        return ""
    size, shown = (1e6, "MB") if unit in BYTES else (1.0, unit)
    digits = 1 if unit in BYTES else 0
    text = f"{done / size:.{digits}f}" + (f" of {total / size:.{digits}f}" if total else "") + f" {shown}"
    if speed and unit in BYTES:
        text += f", {speed / size:.1f} {shown}/s"
    if speed and total and total > done:
        text += f", {(total - done) / speed:.0f} s left"
    return text


@contextmanager
def report_for(console: Console) -> Iterator[Report]:
    """The report that suits the console."""
    if not is_live(console):
        yield PlainReport(sys.stdout)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Amount(), _Seconds())
    # What is printed meanwhile goes above the bars; but what a pipe or a variable takes up stays out of their way.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bars:
        yield TerminalReport(console, bars)
