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

NAMES = ("lint", "unit", "molecule", "e2e", "gpu", "bench")
QUICK = ("lint", "unit")
NEEDS_LAB = ("molecule", "e2e", "bench")
FOLDERS = {"unit": "tests/unit", "e2e": "tests/e2e", "gpu": "tests/gpu", "bench": "tests/bench"}
#: Seconds for one job of the tier; a slow scenario builds a kernel module on cores that it shares.
LIMITS = {"lint": 600.0, "unit": 1200.0, "molecule": 2400.0, "e2e": 2400.0, "gpu": 1800.0, "bench": 3600.0}
#: Jobs beside each other.
WIDTHS = {"lint": 2, "unit": 1, "molecule": 2, "e2e": 2, "gpu": 1, "bench": 1}
#: A molecule.yml with this line is run with --slow only.
SLOW_SCENARIO = re.compile(r"^# slow\b", re.MULTILINE)
#: This repository's own rules, as tests in tests/lint.
PROJECT = "project"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Choice:
    """A tier, and the names in it that are wanted (tools, test files, scenarios); none: all."""

    tier: str
    names: tuple[str, ...] = ()


def choose(only: Sequence[str], *, quick: bool, slow: bool) -> list[Choice]:
    """The tiers to run, in order; `only` holds TIER or TIER:NAME. Raises UsageError for an unknown tier."""
    if not only:
        return [Choice(name) for name in (QUICK if quick else NAMES if slow else NAMES[:-1])]
    wanted: dict[str, list[str]] = {}
    whole: set[str] = set()
    for text in only:
        tier, _, name = text.partition(":")
        if tier not in NAMES:
            near = nearest(tier, NAMES)
            hint = f"did you mean `{near}`?" if near else f"there are: {', '.join(NAMES)}"
            raise UsageError(f"--only {text}: there is no tier `{tier}`; {hint}")
        wanted.setdefault(tier, []).append(name)
        if not name:
            whole.add(tier)
    return [Choice(tier, () if tier in whole else tuple(wanted[tier])) for tier in NAMES if tier in wanted]


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
        found[PROJECT] = (sys.executable, "-m", "pytest", "-q", "tests/lint")
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
        found = scenarios(root, slow=slow or bool(choice.names))
        command = (str(BIN / "molecule"), "test", "-s")
        return [_job(choice.tier, name, (*command, name), folder) for name in _named(choice, found)]
    tests = sorted((root / FOLDERS[choice.tier]).rglob("test_*.py"))
    if not tests:
        return []
    options = [] if slow or choice.tier == "bench" else ["-m", "not slow"]
    if expression:
        options += ["-k", expression]
    sites = _sites(root / FOLDERS["e2e"]) if choice.tier == "e2e" else {}
    if choice.names:
        by_name = {test.stem.removeprefix("test_"): str(test.relative_to(root)) for test in tests} | sites
        names = tuple(name.removesuffix(".py").removeprefix("test_") for name in choice.names)
        chosen = _named(Choice(choice.tier, names), list(by_name))
        alone = [by_name[name] for name in chosen if name not in sites]
        groups = {name: [sites[name]] for name in chosen if name in sites} | ({choice.tier: alone} if alone else {})
    elif sites:
        groups = {name: [target] for name, target in sites.items()}
    else:
        groups = {choice.tier: [FOLDERS[choice.tier]]}
        options += ["-n", "2"] if choice.tier == "unit" else []
    pytest = (sys.executable, "-m", "pytest", "-v")
    return [_job(choice.tier, name, (*pytest, *group, *options), folder) for name, group in groups.items()]


def _sites(folder: Path) -> dict[str, str]:
    """What has a site of its own, and so runs beside the others: each folder and each test file of e2e."""
    parts = sorted({test.relative_to(folder).parts[0] for test in folder.rglob("test_*.py")})
    return {part.removesuffix(".py").removeprefix("test_"): f"{FOLDERS['e2e']}/{part}" for part in parts}


def _named(choice: Choice, names: list[str]) -> list[str]:
    """The chosen ones, in the order of `names`; all when none is chosen."""
    for name in choice.names:
        if name not in names:
            near = nearest(name, names)
            hint = f"did you mean `{near}`?" if near else f"there are: {', '.join(names) or 'none'}"
            raise UsageError(f"--only {choice.tier}:{name}: there is no such thing; {hint}")
    return [name for name in names if name in choice.names] if choice.names else names


def _job(tier: str, name: str, argv: tuple[str, ...], folder: Path) -> Job:
    log = folder / (f"{tier}.log" if name == tier else f"{tier}-{name}.log")
    env = {"PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "PYTHONUNBUFFERED": "1"}
    env |= {"PY_COLORS": "0", "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    if "pytest" not in argv:
        return Job(name, argv, log, LIMITS[tier], env)
    xml = log.with_suffix(".xml")
    return Job(name, (*argv, f"--junitxml={xml}"), log, LIMITS[tier], env, xml)
