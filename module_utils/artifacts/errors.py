"""The one exception of this package."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 20


class Refusal(Exception):
    """Input or bytes that must not be used. The text is for the operator: what, where, why, the fix."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        shown = self.problems[:SHOWN]
        if len(self.problems) > SHOWN:
            shown.append(f"and {len(self.problems) - SHOWN} more")
        super().__init__("\n".join(shown))


def plural(count: int, noun: str) -> str:
    """Return '1 file', '2 files'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
