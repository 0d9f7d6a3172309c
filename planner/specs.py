"""The roles' argument specifications against an inventory: unknown names, wrong types, missing values.

Values are judged as the roles will get them: no coercion, since a role's templates see what the operator wrote.
`Specs` is role -> option -> its specification (the `options` of `meta/argument_specs.yml`, entry point `main`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from planner.problems import Problem, looks_secret, shown

Options = Mapping[str, Mapping[str, Any]]
Specs = Mapping[str, Options]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (Mapping,),
    "float": (int, float),
    "int": (int,),
    "list": (list, tuple),
    "path": (str,),
    "str": (str,),
}
_COMMAND_LINE = {"bool": "true", "float": "1.5", "int": "1"}
_WORDS = {
    "bool": ("a boolean", "write true or false without quotes"),
    "dict": ("a mapping", "write `key: value` lines"),
    "float": ("a number", "write a number without quotes"),
    "int": ("a whole number", "write it without quotes"),
    "list": ("a list", "write `- value` lines"),
    "path": ("a path", "write text"),
    "str": ("text", "put it in quotes"),
}


def known_names(specs: Specs) -> dict[str, Mapping[str, Any]]:
    """Return every variable that some role documents, with its specification."""
    return {name: option for options in specs.values() for name, option in options.items()}


def ours(name: str, specs: Specs) -> bool:
    """Say whether a variable's prefix is one of ours."""
    return name.startswith("redoubt_") or any(name.startswith(f"{role}_") for role in specs)


def unknown(
    names: Iterable[str], specs: Specs, renamed: Mapping[str, str], ignored: Sequence[str]
) -> Iterator[Problem]:
    """Yield a problem for every variable with our prefix that no role documents, or that has a new name."""
    known = known_names(specs)
    for name in sorted(set(names)):
        if name in renamed:
            yield Problem(name, "the variable has a new name", f"rename it to {renamed[name]}")
        elif name not in known and ours(name, specs) and not any(fnmatchcase(name, rule) for rule in ignored):
            near = get_close_matches(name, known, 1, 0.6)
            fix = f"did you mean {near[0]}?" if near else "remove it"
            why = "no role knows this variable"
            yield Problem(name, why, f"{fix} (a variable of your own: name it in preflight_ignored_variables)")


def wrong(name: str, value: object, option: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with one variable's value: type, elements, choices, nested options, CIDRs and ports."""
    if value is None and (not option.get("required") or "default" in option):
        return
    yield from _value(name, value, option, secret=bool(option.get("no_log")))


def missing(role: str, names: Iterable[str], specs: Specs, planned: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for every required variable of a role that is neither set nor given by the plan."""
    present = {*names, *planned}
    for name, option in specs.get(role, {}).items():
        if option.get("required") and name not in present:
            described = option.get("description", "")
            about = described[0] if isinstance(described, list | tuple) and described else described
            yield Problem(name, f"role {role} needs it", f"set it: {str(about).rstrip('.')}")


def _value(where: str, value: object, option: Mapping[str, Any], *, secret: bool) -> Iterator[Problem]:
    secret = secret or bool(option.get("no_log")) or looks_secret(where)
    kind = option.get("type", "str")
    allowed = _TYPES.get(kind)
    if allowed is not None and (not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool")):
        meaning, fix = _WORDS[kind]
        why = f"it must be {meaning}, not {_word(value)}"
        if isinstance(value, str) and kind in _COMMAND_LINE and where.isidentifier():
            # key=value on the command line is always text.
            fix += f"; on the command line use -e '{{\"{where}\": {_COMMAND_LINE[kind]}}}'"
        yield Problem(where, why, fix, shown(value, secret=secret))
        return
    choices = option.get("choices")
    values = value if isinstance(value, list | tuple) else [value]
    if choices:
        for item in values:
            if item not in choices:
                near = get_close_matches(str(item), [str(choice) for choice in choices], 1)
                listed = ", ".join(str(choice) for choice in choices)
                fix = f"write one of: {listed}" + (f" (did you mean {near[0]}?)" if near else "")
                yield Problem(where, "it is not one of the choices", fix, shown(item, secret=secret))
    if isinstance(value, list | tuple):
        yield from _elements(where, value, option, secret=secret)
    elif isinstance(value, Mapping) and option.get("options"):
        yield from _fields(where, value, option["options"], secret=secret)
    elif isinstance(value, int) and _leaf(where).endswith("port") and not 1 <= value <= 65535:
        yield Problem(where, "it is not a port", "write a number from 1 to 65535", shown(value))


def _elements(where: str, values: Sequence[object], option: Mapping[str, Any], *, secret: bool) -> Iterator[Problem]:
    element: dict[str, Any] = {"type": option.get("elements", "raw"), "options": option.get("options")}
    for index, item in enumerate(values):
        place = f"{where}[{index}]"
        if element["type"] == "str" and _leaf(where).endswith("cidrs"):
            yield from cidr(place, item)
        else:
            yield from _value(place, item, element, secret=secret)


def _fields(where: str, value: Mapping[Any, object], options: Options, *, secret: bool) -> Iterator[Problem]:
    for name in value:
        if name not in options:
            near = get_close_matches(str(name), options, 1)
            fix = f"did you mean `{near[0]}`?" if near else f"remove it; known are {', '.join(sorted(options))}"
            yield Problem(f"{where}.{name}", "there is no such field", fix)
    for name, option in options.items():
        if value.get(name) is not None:
            yield from _value(f"{where}.{name}", value[name], option, secret=secret)
        elif option.get("required"):
            yield Problem(f"{where}.{name}", "it is missing", f"add `{name}`")


def cidr(where: str, value: object) -> Iterator[Problem]:
    """Yield what is wrong with one network in CIDR form."""
    if not isinstance(value, str):
        yield Problem(where, "a network is text", "write it such as 10.0.0.0/8", shown(value))
        return
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        fix = "write a network such as 10.0.0.0/8 or 2001:db8::/32"
        with suppress(ValueError):
            fix = f"write {ipaddress.ip_network(value, strict=False)}, or {value.partition('/')[0]} for the one address"
        yield Problem(where, f"it is not a network ({error})", fix, shown(value))


def _leaf(where: str) -> str:
    """Return the last word of a place: redoubt_models[0].port -> port."""
    return where.rpartition(".")[2].partition("[")[0]


def _word(value: object) -> str:
    if value is None:
        return "null"
    for kind, types in (("a boolean", bool), ("a list", (list, tuple)), ("a mapping", Mapping), ("text", str)):
        if isinstance(value, types):
            return kind
    return "a number"
