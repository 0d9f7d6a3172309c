"""A lock's sections as YAML whose rows are JSON, one a line: diffs are short, and many are read in no time. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

# What a row is (a mapping in a list that names bytes, a key, a version), and which of its fields stand first.
ROW_FIELDS = frozenset({"sha256", "fingerprint", "version", "fingerprints", "platform"})
FIRST = ("name", "version", "file", "path", "role")
ROW_MARK = re.compile("'@row:([0-9]+)@'")
ROW_LINE = re.compile(r"^( *- )(\{.*\})$", re.MULTILINE)
LONGEST_LINE = 1 << 20


class _Dumper(yaml.CSafeDumper):
    """Repeats what is listed twice: aliases are hard to read in a diff."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


class _Loader(yaml.CSafeLoader):
    """Knows the tag !row, which `parse` puts in the place of the rows that it has read already."""

    rows: list[Any]


def dump(content: Mapping[str, Any]) -> str:
    """Return plain data as text; the same data gives the same text."""
    rows: list[str] = []
    text = yaml.dump(_marked(content, rows), Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=LONGEST_LINE)
    return ROW_MARK.sub(lambda match: rows[int(match.group(1))], str(text))


def parse(text: str) -> Any:
    """Return the data of a text. Raises yaml.YAMLError."""
    rows: list[Any] = []

    def taken(match: re.Match[str]) -> str:
        try:
            rows.append(json.loads(match.group(2), object_pairs_hook=_once))
        except ValueError:
            return match.group(0)  # written by hand, as YAML
        return f"{match.group(1)}!row {len(rows) - 1}"

    loader = _Loader(ROW_LINE.sub(taken, text))
    loader.rows = rows
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _marked(value: Any, rows: list[str]) -> Any:
    """Replace the mappings that are rows by marks; their texts are added to `rows`."""
    if isinstance(value, Mapping):
        return {key: _marked(item, rows) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("@row:"):
        rows.append(json.dumps(value))
        return f"@row:{len(rows) - 1}@"
    if not isinstance(value, list | tuple):
        return value
    made: list[Any] = []
    for item in value:
        if isinstance(item, Mapping) and ROW_FIELDS & set(item):
            rows.append(json.dumps({key: item[key] for key in sorted(item, key=_place)}, ensure_ascii=False))
            made.append(f"@row:{len(rows) - 1}@")
        else:
            made.append(_marked(item, rows))
    return made


def _place(key: str) -> tuple[int, str]:
    return (FIRST.index(key) if key in FIRST else len(FIRST), key)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise yaml.YAMLError("a row names one field twice")
    return made


def _row(loader: _Loader, node: yaml.ScalarNode) -> Any:
    number = str(loader.construct_scalar(node))
    if not number.isdigit() or int(number) >= len(loader.rows):
        raise yaml.YAMLError("!row is no tag that a lock has")
    return loader.rows[int(number)]


_Loader.add_constructor("!row", _row)
