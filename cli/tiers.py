"""What `test` runs: the tiers, their jobs, and the choice among them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.jobs import Job
from cli.playbooks import UsageError, nearest

NAMES = ("lint", "unit", "molecule", "e2e", "bench")
QUICK = ("lint", "unit")
NEEDS_LAB = ("molecule", "e2e", "bench")
FOLDERS = {"unit": "tests/unit", "e2e": "tests/e2e", "bench": "tests/bench"}
#: Seconds for one job of the tier.
LIMITS = {"lint": 600.0, "unit": 900.0, "molecule": 1500.0, "e2e": 2400.0, "bench": 3600.0}
#: Jobs beside each other.
WIDTHS = {"lint": 2, "unit": 1, "molecule": 2, "e2e": 1, "bench": 1}
#: A molecule.yml with this line is run with --slow only.
SLOW_SCENARIO = re.compile(r"^# slow\b", re.MULTILINE)
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Choice:
    """One --only: a tier, and perhaps a name in it (a tool, a test file, a scenario)."""

    tier: str
    name: str | None = None


def choose(only: Sequence[str], *, quick: bool, slow: bool) -> list[Choice]:
    """The tiers to run, in order. Raises UsageError for an unknown one."""
    if only:
        choices = [parse(text) for text in only]
        return sorted(choices, key=lambda choice: NAMES.index(choice.tier))
    names = QUICK if quick else NAMES if slow else NAMES[:-1]
    return [Choice(name) for name in names]


def parse(text: str) -> Choice:
    """`TIER` or `TIER:NAME`. Raises UsageError."""
    tier, _, name = text.partition(":")
    if tier not in NAMES:
        near = nearest(tier, NAMES)
        hint = f"did you mean `{near}`?" if near else f"there are: {', '.join(NAMES)}"
        raise UsageError(f"--only {text}: there is no tier `{tier}`; {hint}")
    return Choice(tier, name or None)


def lint_commands(root: Path) -> dict[str, tuple[str, ...]]:
    """The linters by name."""
    commands: dict[str, tuple[str, ...]] = {
        "ruff": ("ruff", "check", ".", "redoubt"),
        "ruff-format": ("ruff", "format", "--check", ".", "redoubt"),
        "mypy": ("mypy",),
        "mypy-launcher": ("mypy", "redoubt"),
        "yamllint": ("yamllint", "--strict", "."),
        "ansible-lint": ("ansible-lint", "--offline"),
    }
    # The longest first: two run beside each other.
    order = ("ansible-lint", "mypy", "mypy-launcher", "yamllint", "ruff", "ruff-format")
    found = {name: (str(BIN / commands[name][0]), *commands[name][1:]) for name in order}
    if any((root / "tests" / "lint").glob("test_*.py")):
        found["project"] = (sys.executable, "-m", "pytest", "-q", "tests/lint")
    return found


def scenarios(root: Path, *, slow: bool) -> list[str]:
    """The molecule scenarios, by name."""
    files = sorted((root / "molecule").glob("*/molecule.yml"))
    return [file.parent.name for file in files if slow or not SLOW_SCENARIO.search(file.read_text(encoding="utf-8"))]


def jobs(choice: Choice, root: Path, folder: Path, *, slow: bool, expression: str | None) -> list[Job]:
    """The jobs of one tier; none when there is nothing. Raises UsageError for an unknown name in it."""
    if choice.tier == "lint":
        tools = lint_commands(root)
        return [_job(choice.tier, name, tools[name], folder) for name in _named(choice, list(tools))]
    if choice.tier == "molecule":
        found = scenarios(root, slow=slow or choice.name is not None)
        return [
            _job(choice.tier, name, (str(BIN / "molecule"), "test", "-s", name), folder)
            for name in _named(choice, found)
        ]
    tests = sorted((root / FOLDERS[choice.tier]).rglob("test_*.py"))
    if not tests:
        return []
    targets = [FOLDERS[choice.tier]]
    if choice.name is not None:
        wanted = choice.name.removesuffix(".py").removeprefix("test_")
        by_name = {test.stem.removeprefix("test_"): str(test.relative_to(root)) for test in tests}
        targets = [by_name[name] for name in _named(Choice(choice.tier, wanted), list(by_name))]
    argv = [sys.executable, "-m", "pytest", "-v", f"--junitxml={folder / choice.tier}.xml", *targets]
    if not slow and choice.tier != "bench":
        argv += ["-m", "not slow"]
    if expression:
        argv += ["-k", expression]
    if choice.tier == "unit" and choice.name is None:
        argv += ["-n", "2"]
    return [_job(choice.tier, choice.tier, tuple(argv), folder)]


def _named(choice: Choice, names: list[str]) -> list[str]:
    if choice.name is None:
        return names
    if choice.name not in names:
        near = nearest(choice.name, names)
        hint = f"did you mean `{near}`?" if near else f"there are: {', '.join(names) or 'none'}"
        raise UsageError(f"--only {choice.tier}:{choice.name}: there is no such thing; {hint}")
    return [choice.name]


def _job(tier: str, name: str, argv: tuple[str, ...], folder: Path) -> Job:
    log = folder / (f"{tier}.log" if name == tier else f"{tier}-{name}.log")
    env = {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "PYTHONUNBUFFERED": "1"}
    env |= {"PY_COLORS": "0", "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    return Job(name, argv, log, LIMITS[tier], env)
