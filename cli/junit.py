"""Counting what pytest reports."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Counts:
    """Numbers of tests by outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    @property
    def total(self) -> int:
        """All of them."""
        return self.passed + self.failed + self.skipped

    def line(self) -> str:
        """The closing line: `N passed, N failed`, and the skipped ones if there are any."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass(frozen=True)
class Case:
    """One test that did not pass; `outcome` is failed or skipped."""

    name: str
    outcome: str
    message: str


def read(text: str) -> tuple[Counts, list[Case]]:
    """Counts of a JUnit document, and its tests that did not pass. An error in setup or teardown is a failure.

    Raises ValueError when the text is no such document.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314  # what pytest, started here, has just written
    except ET.ParseError as error:
        raise ValueError(f"no JUnit document: {error}") from error
    outcomes: dict[tuple[str, str], str] = {}
    cases: list[Case] = []
    for case in root.iter("testcase"):
        key = (case.get("classname", ""), case.get("name", ""))
        outcome, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome, message = "failed", child.get("message", "")
            elif child.tag == "skipped" and outcome == "passed":
                outcome, message = "skipped", _reason(child)
        # A test that passed and then failed to clean up is listed twice: it failed.
        if outcomes.get(key) != "failed":
            outcomes[key] = outcome
        if outcome != "passed":
            cases.append(Case("::".join(part for part in key if part), outcome, message))
    values = list(outcomes.values())
    return Counts(values.count("passed"), values.count("failed"), values.count("skipped")), cases


def _reason(skipped: ET.Element) -> str:
    """Why a test was skipped; of a whole file pytest writes (file, line, "Skipped: why") as the text instead."""
    message = skipped.get("message", "")
    if message != "collection skipped":
        return message
    try:
        return str(ast.literal_eval(skipped.text or "")[2]).removeprefix("Skipped: ")
    except (ValueError, SyntaxError, IndexError):
        return message


def counts_of(xml: Path, rc: int) -> tuple[Counts, list[Case]]:
    """Counts of one pytest run from its document and exit code.

    A run that broke (no document, or an exit code that the document does not explain) counts as one failure.
    """
    try:
        counts, cases = read(xml.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        counts, cases = Counts(), []
    nothing_collected = rc == 5
    if rc != 0 and not nothing_collected and not counts.failed:
        counts += Counts(failed=1)
        cases.append(Case("pytest", "failed", f"ended with exit code {rc}"))
    return counts, cases
