"""`lab`: the throwaway hosts. The verbs are those of `python -m lab`; this adds the terminal's progress display."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cli.progress import report_for
from lab.__main__ import main as lab_main
from lab.report import PlainReport

SLOW_VERBS = ("up", "down", "images", "restart")


def lab(arguments: Sequence[str], console: Console) -> int:
    """Runs one verb of the lab; its exit code. `console` should be standard error: verbs print results on output."""
    if not arguments or arguments[0] not in SLOW_VERBS:
        return lab_main(arguments, PlainReport())  # `shell` becomes ssh: no display may be open by then
    with report_for(console) as report:
        return lab_main(arguments, report)
