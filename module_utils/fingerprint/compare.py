# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What differs: between two fingerprints, or between one and what its host recorded. Pure. Python 3.9+."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

ABSENT = "absent"
PRESENT = "there"
WHOLE = ""
DIGEST = re.compile(r"((?:sha256:)?[0-9a-f]{12})[0-9a-f]{52}")

Rows = Mapping[str, Optional[Mapping[str, str]]]


@dataclass(frozen=True)
class Difference:
    """One thing that differs: `field` of the row `name` in `section`; an empty field is the whole row."""

    section: str
    name: str
    field: str
    left: str
    right: str

    def text(self, left: str, right: str) -> str:
        """The difference as a line; `left` and `right` say whose the values are."""
        values = f"{_short(self.left)} {left}, {_short(self.right)} {right}"
        return f"{self.section} {self.name}: {self.field + ' ' if self.field else ''}{values}"


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> List[Difference]:
    """What differs between two fingerprints, by section and name.

    Two of the same host are compared with what belongs to that host alone; two of different hosts without it.
    """
    found = list(_tables(left["sections"], right["sections"], ""))
    if left["host"] == right["host"]:
        seen = {(row.section, row.name) for row in found}
        # A file whose content differs differs in its bytes too: once is enough.
        found += [
            row
            for row in _tables(left["local"], right["local"], "local ")
            if (row.section.partition(" ")[2], row.name) not in seen
        ]
    return found


def drift(document: Mapping[str, Any]) -> List[Difference]:
    """What a host has that its own records state otherwise: `left` is recorded, `right` found."""
    found: List[Difference] = []
    seen = set()
    for part, prefix in (("sections", ""), ("local", "local ")):
        recorded: Mapping[str, Rows] = document["recorded"][part]
        for section, rows in sorted(recorded.items()):
            here = document[part].get(section, {})
            for name, row in sorted(rows.items()):
                if (section, name) in seen:
                    continue
                other = list(_against_record(f"{prefix}{section}", name, row, here.get(name)))
                seen |= {(section, name)} if other else set()
                found += other
    return found


def _against_record(
    section: str, name: str, recorded: Optional[Mapping[str, str]], found: Optional[Mapping[str, str]]
) -> Iterator[Difference]:
    """Only the fields that the record has are compared."""
    if recorded is None:
        if found is not None:
            yield Difference(section, name, WHOLE, ABSENT, _summary(found))
    elif found is None:
        yield Difference(section, name, WHOLE, _summary(recorded), ABSENT)
    else:
        for field in sorted(recorded):
            if recorded[field] != found.get(field, ABSENT):
                yield Difference(section, name, field, recorded[field], found.get(field, ABSENT))


def _tables(left: Mapping[str, Rows], right: Mapping[str, Rows], prefix: str) -> Iterator[Difference]:
    for section in sorted({*left, *right}):
        yield from _sections(f"{prefix}{section}", left.get(section, {}), right.get(section, {}))


def _sections(section: str, left: Rows, right: Rows) -> Iterator[Difference]:
    for name in sorted({*left, *right}):
        one, two = left.get(name), right.get(name)
        if one is None or two is None:
            yield Difference(section, name, WHOLE, _summary(one), _summary(two))
            continue
        for field in sorted({*one, *two}):
            if one.get(field, ABSENT) != two.get(field, ABSENT):
                yield Difference(section, name, field, one.get(field, ABSENT), two.get(field, ABSENT))


def _summary(row: Optional[Mapping[str, str]]) -> str:
    if row is None:
        return ABSENT
    return row.get("version") or PRESENT


def _short(value: str) -> str:
    """A value for people: a digest by its beginning."""
    digest = DIGEST.fullmatch(value)
    return f"{digest[1]}…" if digest else value or '""'


def report(rows: Sequence[Difference], left: str, right: str) -> List[str]:
    """The differences as lines, the number of them first; nothing when there are none."""
    if not rows:
        return []
    noun = "difference" if len(rows) == 1 else "differences"
    return [f"{len(rows)} {noun}:", *(f"  {row.text(left, right)}" for row in rows)]


def as_rows(rows: Sequence[Difference]) -> List[Dict[str, str]]:
    """The differences as plain data."""
    return [asdict(row) for row in rows]
