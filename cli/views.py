"""How a playbook run looks while it goes on: a live region on a terminal, one line per task on a pipe."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.events import Notice, PhaseDone, Said, Tally, TaskDone
from cli.failures import Failure
from cli.records import TaskRecord

SLOW = 5.0
HEARTBEAT = 30.0
REFUSALS = 3
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STYLES = {"warning": "yellow", "deprecated": "yellow", "error": "red", "system_warning": "yellow"}


class View(Protocol):
    """Shows a run. To be entered; `tick` is called a few times a second, also when nothing happens."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def show(self, notice: Notice) -> None:
        """Show one thing that happened."""

    def tick(self) -> None:
        """Let time pass."""


def is_live(console: Console) -> bool:
    """True when the console can be drawn on again and again."""
    return console.is_terminal and not console.is_dumb_terminal and os.environ.get("CI", "") in ("", "false", "0")


def make_console(*, stderr: bool = False) -> Console:
    """The console of a verb; text is printed as it is, without guessed colours."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, stderr=stderr)


def view_for(console: Console, tally: Tally) -> View:
    """The view that suits the console."""
    return TerminalView(console, tally) if is_live(console) else PipeView(console, tally)


def clock(seconds: float) -> str:
    """mm:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def task_line(notice: TaskDone) -> str:
    """`[mm:ss] phase | task | ok 1 changed 0 failed 0 | 1.2s`; skipped and unreachable only where there are some."""
    task = notice.task
    counts = f"ok {task.ok} changed {task.changed} failed {task.failed}"
    counts += "".join(
        f" {name} {n}"
        for name, n in (("skipped", task.skipped), ("unreachable", task.unreachable), ("ignored", task.ignored))
        if n
    )
    return f"[{clock(notice.elapsed)}] {task.phase} | {task.name} | {counts} | {task.seconds:.1f}s"


def said_lines(said: Said) -> list[str]:
    """A message names its host; everything else is printed as Ansible printed it."""
    lines = said.text.splitlines()
    if said.kind != "message":
        return lines
    return (
        [f"  {said.host}: {lines[0] if lines else ''}"]
        if len(lines) < 2
        else [f"  {said.host}:", *(f"    {x}" for x in lines)]
    )


def said_style(kind: str, line: str) -> str:
    """Colour of one line that was said."""
    if kind == "diff":
        return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
    return STYLES.get(kind, "red" if line.startswith("[ERROR]") else "yellow" if line.startswith("[WARNING]") else "")


class PipeView:
    """One line per finished task, and a sign of life from a slow one every half minute."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console, self._tally = console, tally
        self._last = time.time()

    def __enter__(self) -> PipeView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def show(self, notice: Notice) -> None:
        """Print the line or lines."""
        if isinstance(notice, PhaseDone):
            return
        self._last = time.time()
        if isinstance(notice, TaskDone):
            self._print(task_line(notice))
        elif isinstance(notice, Failure):
            self._print("\n".join(notice.lines()))
        else:
            self._print("\n".join(said_lines(notice)))

    def tick(self) -> None:
        """Print a sign of life when nothing was printed for long."""
        now = time.time()
        if now - self._last < HEARTBEAT:
            return
        self._last = now
        for task in self._tally.open.values():
            name = f"{task.phase} | {task.name} | running {now - task.begin:.0f}s"
            self._print(f"[{clock(now - self._tally.start)}] {name}{' ' + task.retry if task.retry else ''}")

    def _print(self, text: str) -> None:
        self._console.print(text, crop=False, overflow="ignore", soft_wrap=True)


class TerminalView:
    """Finished phases, refusals, messages and slow tasks scroll by; below them stands what is going on now."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console, self._tally = console, tally
        # Drawn from `tick` alone: no second thread reads the tally while it changes.
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.update(Text(""))
        self._live.stop()

    def show(self, notice: Notice) -> None:
        """Print what deserves to stay."""
        if isinstance(notice, TaskDone):
            if notice.task.seconds > SLOW:
                self._print(Text(f"  {notice.task.name}  {notice.task.seconds:.1f} s", style="dim"))
        elif isinstance(notice, PhaseDone):
            phase = notice.phase
            good = phase.complete and not phase.failed
            mark = Text("✓ ", style="green") if good else Text("✗ ", style="red")
            changed = f", {phase.changed} changed" if phase.changed else ""
            changed += "" if phase.complete else ", cut short"
            self._print(mark + Text(f"{phase.name}  {phase.tasks} tasks{changed}  {phase.seconds:.1f} s"))
        elif isinstance(notice, Failure):
            first, *rest = notice.lines()
            self._print(Text(first, style="yellow" if notice.ignored else "bold red"))
            for line in rest:
                self._print(Text(line))
        else:
            for line in said_lines(notice):
                self._print(Text(line, style=said_style(notice.kind, line)))

    def tick(self) -> None:
        """Draw the region anew."""
        self._live.update(region(self._tally, time.time(), self._console.width), refresh=True)

    def _print(self, text: Text) -> None:
        self._console.print(text, crop=False, overflow="ignore", soft_wrap=True)


def region(tally: Tally, now: float, width: int) -> Group:
    """What is going on: phase, elapsed and counts; the running tasks with hosts; the last refusals."""
    totals = {
        name: sum(getattr(c, name) for c in tally.counts.values())
        for name in ("ok", "changed", "failed", "unreachable")
    }
    phase = tally.phase.name if tally.phase else "starting ansible-playbook"
    bad = totals["failed"] + totals["unreachable"]
    head = Text(f"{SPINNER[int(now * 4) % len(SPINNER)]} {phase}", style="bold")
    head.append(f"  {clock(now - tally.start)}  ok {totals['ok']} changed {totals['changed']} ", style="not bold")
    head.append(f"failed {bad}", style="bold red" if bad else "not bold")
    lines = [head, *(Text(_running(task, tally, now)) for task in list(tally.open.values())[:REFUSALS])]
    lines += [Text(f"  {failure.headline()}", style="red") for failure in tally.failures[-REFUSALS:]]
    for line in lines:
        line.truncate(max(20, width - 1), overflow="ellipsis")
    return Group(*lines)


def _running(task: TaskRecord, tally: Tally, now: float) -> str:
    total = max(len(task.started), len(tally.hosts | task.done))
    parts = [f"  {task.name}", f"hosts {len(task.done)}/{total}"] if total else [f"  {task.name}"]
    if now - task.begin > SLOW:
        parts.append(f"{now - task.begin:.0f} s")
    if task.retry:
        parts.append(task.retry)
    return "  ".join(parts)
