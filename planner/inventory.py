"""One host's variables: what is wrong with them before any host is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planner import specs
from planner.problems import Problem, looks_secret

# Group of the inventory (as told by the playbook) -> the word for it in a plan.
KINDS: Mapping[str, str] = {
    "depot": "depot",
    "gateways": "gateway",
    "inference": "inference",
    "monitoring": "monitoring",
}
# A role's own judgement of its settings: lines "VARIABLE: why - fix".
Judge = Callable[[dict[str, Any]], Sequence[str]]
_LINE = re.compile(r"(?P<where>[a-z_]+(?:\[\d+\])?(?: \([^)]*\))?): (?P<why>.*?)(?: - (?P<fix>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Rules:
    """What variables are measured against.

    specs: the roles' options; renamed: old name -> new name; ignored: names (with *) that are the operator's own;
    planned: variables that a play fills from the plan; roles: kind -> the roles that a host of this kind runs;
    judges: role -> its own judgement.
    """

    specs: specs.Specs
    renamed: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    planned: Sequence[str] = ()
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    judges: Mapping[str, Judge] = field(default_factory=dict)


@dataclass(frozen=True)
class Variables:
    """One host's variables: every name that is set, and the values of those that could be evaluated."""

    names: frozenset[str]
    values: Mapping[str, Any]


def first_of_each_place(problems: Iterable[Problem]) -> list[Problem]:
    """Keep what was first said of each place on each host."""
    kept: dict[tuple[str, tuple[str, ...]], Problem] = {}
    for problem in problems:
        kept.setdefault((problem.where, problem.hosts), problem)
    return list(kept.values())


def needing(name: str, raw: Mapping[str, Any]) -> frozenset[str]:
    """Return the variables whose expressions speak of `name`, directly or through another variable."""
    words = {
        str(key): frozenset(re.findall(r"\w+", repr(value)))
        for key, value in raw.items()
        if key not in (name, "hostvars", "vars")
    }
    found: set[str] = set()
    reached = {name}
    while reached:
        reached = {key for key, spoken in words.items() if spoken & reached and key not in found}
        found |= reached
    return frozenset(found)


def kinds_of(host: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what a host is, from the members of each group."""
    return [word for group, word in KINDS.items() if host in groups.get(group, ())]


def check(variables: Variables, kinds: Sequence[str], rules: Rules) -> list[Problem]:
    """Return what is wrong with one host's variables; a place is named once."""
    found = [*specs.unknown(variables.names, rules.specs, rules.renamed, rules.ignored)]
    known = specs.known_names(rules.specs)
    for name in sorted(variables.values):
        if name in known:
            found.extend(specs.wrong(name, variables.values[name], known[name]))
    for role in roles_of(kinds, rules):
        found.extend(specs.missing(role, variables.names, rules.specs, rules.planned))
        if role in rules.judges:
            found.extend(_judged(role, variables, rules, found))
    return found


def roles_of(kinds: Iterable[str], rules: Rules) -> list[str]:
    """Return the roles that a host of these kinds runs."""
    return list(dict.fromkeys(role for kind in kinds for role in rules.roles.get(kind, ())))


def _judged(role: str, variables: Variables, rules: Rules, found: Sequence[Problem]) -> list[Problem]:
    """Ask a role's own judge; what it says of a variable that is already refused is left out."""
    options = rules.specs.get(role, {})
    settings = {name: option.get("default") for name, option in options.items()}
    settings |= {name: value for name, value in variables.values.items() if name in options}
    refused = {_variable(problem.where) for problem in found}
    # A value that only the plan or the host's facts will give is not there yet.
    waiting = {*rules.planned, *(variables.names - variables.values.keys())}
    problems = []
    for line in rules.judges[role](settings):
        problem = parse_line(line)
        if _variable(problem.where) not in refused | waiting:
            problems.append(problem)
    return problems


def parse_line(line: str) -> Problem:
    """Return the problem that a line "VARIABLE: why - fix" tells."""
    match = _LINE.fullmatch(line)
    if match is None:
        return Problem("variables", line.rstrip("."), "see the role's README")
    return Problem(match["where"], match["why"].rstrip("."), (match["fix"] or "see the role's README").rstrip("."))


def _variable(where: str) -> str:
    return re.split(r"[\[. ]", where, maxsplit=1)[0]


def not_evaluated(name: str, error: str, *, safe: bool = False) -> Problem:
    """Return the problem of a variable whose expression fails; a secret one's message is shown only if `safe`."""
    reason = "" if looks_secret(name) and not safe else f" ({error})"
    return Problem(name, f"its value could not be evaluated{reason}", "correct the expression or what it refers to")


def not_asked(host: str, names: Iterable[str]) -> Problem:
    """Return the problem of another host whose variables need facts that this run does not gather."""
    why = f"{', '.join(sorted(names))} needs facts of the host, which is not part of this run"
    return Problem(f"variables of {host}", why, "write the values into the inventory, or run for all hosts")
