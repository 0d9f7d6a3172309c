"""The options of a conversion: only those that its kind knows, each judged by its rule (data/conversions.yml). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from planner.problems import Problems

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MODULE = re.compile(r"(?:re:)?[A-Za-z0-9_.*^$|()\[\]\\+?][A-Za-z0-9_.*^$|()\[\]\\+?-]{0,199}")


def chosen(
    kind: str,
    rules: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, object],
    where: str,
    problems: Problems,
) -> dict[str, object]:
    """Return every option of the kind with the operator's value or ours; wrong ones are noted."""
    for name, value in given.items():
        if name not in rules:
            unknown(f"{where}.{name}", f"{kind} has no such option", name, sorted(rules), value, problems)
    result: dict[str, object] = {}
    for name, rule in rules.items():
        place = f"{where}.{name}"
        result[name] = given.get(name, rule.get("default"))
        if name in given:
            wrong = _wrong(given[name], rule)
            if wrong:
                problems.add(place, wrong[0], wrong[1], given[name])
        elif rule.get("needed"):
            problems.add(place, f"{kind} needs it", f"add `{name}`")
    return result


def _wrong(value: object, rule: Mapping[str, Any]) -> tuple[str, str] | None:
    """Say what is wrong with an option's value, and the fix."""
    if rule["kind"] == "choice":
        near = get_close_matches(str(value), rule["of"], 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return None if value in rule["of"] else ("it is not allowed", f"write one of {', '.join(rule['of'])}{hint}")
    if rule["kind"] == "number":
        low, high = rule["low"], rule["high"]
        right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if right else ("it is not such a number", f"write a whole number from {low} to {high}")
    if rule["kind"] == "words":
        right = isinstance(value, list | tuple) and all(
            isinstance(word, str) and _MODULE.fullmatch(word) for word in value
        )
        return None if right else ("it is not a list of modules' names", 'write such as [lm_head, "re:.*mlp.gate$"]')
    right = isinstance(value, str) and _NAME.fullmatch(value) is not None
    return None if right else ("it is not a name", "write a name without folders")


def words(options: Mapping[str, object]) -> list[str]:
    """Return the command line of options; null ones are left out, true stands for a switch."""
    line: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        line.append(f"--{name}")
        if isinstance(value, list | tuple):
            line.extend(str(item) for item in value)
        elif value is not True:
            line.append(str(value))
    return line


def unknown(where: str, why: str, name: str, known: Sequence[str], value: object, problems: Problems) -> None:
    """Note a name that is not known, with the nearest that is."""
    near = get_close_matches(name, known, 1)
    fix = f"did you mean `{near[0]}`?" if near else f"remove it; there are: {', '.join(known)}"
    problems.add(where, why, fix, value)
