"""Problems: what is wrong, where, why, and how to put it right. Collected, never raised one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

_SECRET_NAME = re.compile(r"(?i)(^|[_.-])(key|keys|password|passphrase|secret|token|credential)s?($|[_.\[-])")
_SHOWN_CHARACTERS = 80
_SHOWN_HOSTS = 5


class _Unset:
    """Stands for "no value to show", since None is a value that an operator can write."""


UNSET = _Unset()


@dataclass(frozen=True)
class Problem:
    """One reason for a refusal.

    where: the variable (with index or field), file or host property; why: what is wrong with it; fix: what to do;
    value: the value as text, already safe to print, or None; hosts: where it was seen, empty = everywhere.
    """

    where: str
    why: str
    fix: str
    value: str | None = None
    hosts: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the problem as one line for an operator."""
        rest = f" and {len(self.hosts) - _SHOWN_HOSTS} more" if len(self.hosts) > _SHOWN_HOSTS else ""
        seen = f" [{', '.join(self.hosts[:_SHOWN_HOSTS])}{rest}]" if self.hosts else ""
        subject = self.where if self.value is None else f"{self.where} = {self.value}"
        fix = self.fix if self.fix.endswith(("?", ")")) else f"{self.fix}."
        return f"{subject}{seen}: {self.why}. Fix: {fix}"

    def on(self, *hosts: str) -> Problem:
        """Return the same problem, seen on these hosts."""
        return replace(self, hosts=hosts)


def looks_secret(where: str) -> bool:
    """Say whether a variable's name tells that its value must not be printed."""
    return bool(_SECRET_NAME.search(where))


def shown(value: object, *, secret: bool = False) -> str:
    """Return a value as short text for a message; a secret one is never shown."""
    if secret:
        return "(not shown)"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


@dataclass
class Problems:
    """A collector of problems and warnings; a place (`where`, on a host) keeps only what was first said about it."""

    found: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, where: str, why: str, fix: str, value: object = UNSET, host: str | None = None) -> None:
        """Note a problem; `value` is shown unless the name says that it is secret; `host`: whose, if not this one's."""
        hosts = (host,) if host else ()
        if any((known.where, known.hosts) == (where, hosts) for known in self.found):
            return
        text = None if value is UNSET else shown(value, secret=looks_secret(where))
        self.found.append(Problem(where=where, why=why, fix=fix, value=text, hosts=hosts))

    def warn(self, text: str) -> None:
        """Note something that does not stop the run; said once."""
        if text not in self.warnings:
            self.warnings.append(text)


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """Unite equal problems of several hosts into one that names the hosts; order of first sight is kept."""
    together: dict[Problem, list[str]] = {}
    for problem in problems:
        hosts = together.setdefault(replace(problem, hosts=()), [])
        hosts.extend(host for host in problem.hosts if host not in hosts)
    return [replace(problem, hosts=tuple(hosts)) for problem, hosts in together.items()]


def report(problems: Iterable[Problem]) -> str:
    """Return all problems as the text of one refusal."""
    lines = [problem.text() for problem in problems]
    noun = "problem" if len(lines) == 1 else "problems"
    return "\n".join([f"Refused: {len(lines)} {noun}, no host was changed.", *(f"- {line}" for line in lines)])
