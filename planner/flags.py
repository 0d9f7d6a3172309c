"""Engine flags: what an engine's version knows, and how an operator's `engine_args` become a command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from planner.problems import Problems

_DATA = Path(__file__).parent / "data"
_VERSION = re.compile(r"v?(\d+)\.(\d+)")


@dataclass(frozen=True)
class Flags:
    """The flags of one engine version: name -> "switch" | "value"; removed: name -> what to use instead."""

    version: str
    known: Mapping[str, str]
    removed: Mapping[str, str]


@cache
def _data(engine: str) -> Mapping[str, Any]:
    data: Mapping[str, Any] = json.loads((_DATA / f"{engine}_flags.json").read_text(encoding="utf-8"))
    return data


def for_tag(engine: str, tag: str) -> tuple[Flags, str | None]:
    """Return the flags for an image's tag, and a warning where that version's own list is not known."""
    data = _data(engine)
    versions = sorted(data["versions"], key=_order)
    match = _VERSION.match(tag)
    wanted = f"{match[1]}.{match[2]}" if match else ""
    if wanted in versions:
        return Flags(wanted, data["versions"][wanted], data["removed"]), None
    older = [version for version in versions if wanted and _order(version) <= _order(wanted)]
    version = older[-1] if older else versions[0 if wanted else -1]
    warning = f"the flags of {engine} {tag} are not known here; engine_args were checked against {version}"
    return Flags(version, data["versions"][version], data["removed"]), warning


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def arguments(flags: Flags, ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """Return the command-line words for our settings with the operator's laid over them (null takes one away)."""
    merged = {**ours, **{name.replace("_", "-"): value for name, value in theirs.items()}}
    words: list[str] = []
    for name, value in merged.items():
        if value is None:
            continue
        if value is True:
            words.append(f"--{name}")
        elif value is False:
            words.append(f"--no-{name}")
        elif isinstance(value, list | tuple):
            words.extend([f"--{name}", *(_word(item) for item in value)])
        else:
            words.extend([f"--{name}", _word(value)])
    return words


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def check(
    flags: Flags,
    engine: str,
    theirs: Mapping[str, object],
    ours_alone: Mapping[str, str],
    where: str,
    problems: Problems,
) -> None:
    """Note every flag that this version does not know, that is ours to set, or that has the wrong kind of value."""
    seen: set[str] = set()
    for raw, value in theirs.items():
        name = raw.replace("_", "-")
        place = f"{where}.{raw}"
        if name in seen:
            problems.add(place, "the flag is given twice, with _ and with -", f"keep only `{name}`", value)
        seen.add(name)
        if name in flags.removed:
            why = f"{engine} {flags.version} has no --{name} any more"
            problems.add(place, why, f"remove it; its replacement is {flags.removed[name]}", value)
        elif name in ours_alone:
            problems.add(place, "the plan sets this flag", ours_alone[name], value)
        elif name.startswith("no-") and name[3:] in flags.known:
            problems.add(place, "a switch is turned off by false", f"write `{name[3:]}: false`", value)
        elif name not in flags.known:
            near = get_close_matches(name, flags.known, 1)
            hint = f"did you mean `{near[0]}`" if near else "see the engine's documentation"
            problems.add(place, f"{engine} {flags.version} has no flag --{name}", f"{hint}, or remove it", value)
        else:
            _check_value(flags.known[name], name, value, place, problems)


def _check_value(kind: str, name: str, value: object, place: str, problems: Problems) -> None:
    if value is None:
        return
    if kind == "switch" and not isinstance(value, bool):
        problems.add(place, f"--{name} is a switch", "write true or false", value)
    elif kind == "value" and isinstance(value, bool):
        problems.add(place, f"--{name} needs a value", "write its value instead of true or false", value)
    elif isinstance(value, list | tuple) and not value:
        problems.add(place, f"--{name} has an empty list", "give at least one value or remove it", value)
