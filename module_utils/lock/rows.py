# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What each section of a lock must look like, row by row. Pure."""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.image_list import TAG
from ansible.module_utils.artifacts.manifest import SHA256, parse_models, path_problem

SECTIONS: Mapping[str, type] = {
    "platforms": dict,
    "images": dict,
    "models": dict,
    "python": dict,
    "project": dict,
    "keys": list,
}
SITE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
PLATFORM = re.compile(r"[a-z0-9]+-[a-z0-9.]+-(?:amd64|arm64)")
IMAGE = re.compile(r"[a-z0-9]+(?:(?:[._:]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
ROLES = ("manifests", "blobs")

Check = Callable[[Any], "str | None"]
Rows = Mapping[str, Check]


def section_problems(name: str, section: Any) -> Iterator[str]:
    """Yield what is wrong with one section of a lock, which is a mapping or a list as SECTIONS says."""
    return _JUDGES[name](section)


def origin_problem(value: object) -> str | None:
    """Say why this cannot stand as an origin; it is shown to everybody, so it holds no secret."""
    if not isinstance(value, str):
        return "is not a text"
    split = urllib.parse.urlsplit(value)
    if "@" in split.netloc or (split.netloc and split.query):
        return "holds a name, password or token, which would be in git"
    return None


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value and value.isprintable() else "is not a text"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "is neither true nor false"


def _size(value: object) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if good else "is not a number of bytes"


def _like(pattern: re.Pattern[str], what: str) -> Check:
    def check(value: object) -> str | None:
        return None if isinstance(value, str) and pattern.fullmatch(value) else f"is not {what}"

    return check


def _file_name(value: object) -> str | None:
    return path_problem(value) or ("has a folder" if "/" in str(value) else None)


def _tag(value: object) -> str | None:
    if value == "latest":
        return "says nothing: another image has it tomorrow; name a version"
    return None if isinstance(value, str) and TAG.fullmatch(value) else "is not an image tag"


_sha256 = _like(SHA256, "64 lower-case hex digits")
_BYTES: Rows = {"sha256": _sha256, "size": _size}
_NAMED: Rows = {"name": _text, "version": _text, "architecture": _text}
_PACKAGE: Rows = {
    **_NAMED,
    **_BYTES,
    "path": path_problem,
    "origin": origin_problem,
    "base": _flag,
    "bootstrap": _flag,
}
_INDEX: Rows = {"path": path_problem, **_BYTES}
_REPOSITORY: Rows = {"name": _text, "uri": origin_problem, "suite": _text}
_IMAGE: Rows = {
    "name": _like(IMAGE, "an image name such as vllm/vllm-openai"),
    "tag": _tag,
    "digest": _like(DIGEST, "sha256: and 64 lower-case hex digits"),
    "config_digest": _like(DIGEST, "sha256: and 64 lower-case hex digits"),
    "origin": origin_problem,
}
_BLOB: Rows = {
    "role": lambda value: None if value in ROLES else f"is not {' or '.join(ROLES)}",
    "media_type": _text,
    "platform": _text,
    **_BYTES,
}
_WHEEL: Rows = {"name": _text, "version": _text, "file": _file_name, "origin": origin_problem, **_BYTES}
_PROJECT: Rows = {"version": _text, "file": _file_name, **_BYTES}
_KEY: Rows = {"name": _text, "fingerprint": _like(FINGERPRINT, "a fingerprint of 40 or 64 upper-case hex digits")}


def _row(where: str, row: object, rules: Rows) -> Iterator[str]:
    if not isinstance(row, Mapping):
        yield f"{where} is {row!r}, not a mapping"
        return
    for field, check in rules.items():
        if field not in row:
            yield f"{where}: {field} is missing"
        else:
            wrong = check(row[field])
            if wrong:
                yield f"{where}: {field} {row[field]!r} {wrong}"


def _list(where: str, rows: object, rules: Rows, label: str) -> Iterator[str]:
    """Check each row of a list; a row is named by its `label`, where it has one."""
    if not isinstance(rows, list):
        yield f"{where} is not a list"
        return
    for number, row in enumerate(rows, 1):
        name = row.get(label) if isinstance(row, Mapping) else None
        yield from _row(f"{where}.{name or number}", row, rules)


def _twice(where: str, names: Iterator[Any]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{where}.{name} is listed {count} times"


def _platforms(section: Mapping[str, Any]) -> Iterator[str]:
    for name, row in section.items():
        where = f"platforms.{name}"
        if not isinstance(name, str) or not PLATFORM.fullmatch(name):
            yield f"{where}: is no platform's name such as debian-13-amd64"
        if not isinstance(row, Mapping):
            yield f"{where} is not a mapping"
            continue
        yield from _list(f"{where}.packages", row.get("packages"), _PACKAGE, "name")
        yield from _list(f"{where}.indexes", row.get("indexes"), _INDEX, "path")
        yield from _list(f"{where}.repositories", row.get("repositories", []), _REPOSITORY, "name")
        base = row.get("base", {})
        listed = base.get("packages", []) if isinstance(base, Mapping) else None
        yield from _list(f"{where}.base.packages", listed, _NAMED, "name")
        packages = row.get("packages")
        if isinstance(packages, list):
            rows = [item for item in packages if isinstance(item, Mapping)]
            yield from _twice(f"{where}.packages", (str(item.get("name")) for item in rows))


def _images(section: Mapping[str, Any]) -> Iterator[str]:
    for key, row in section.items():
        where = f"images.{key}"
        found = list(_row(where, row, _IMAGE))
        blobs = row.get("blobs") if isinstance(row, Mapping) else None
        found += _list(f"{where}.blobs", blobs, _BLOB, "sha256")
        yield from found
        if found:
            continue
        known = {f"sha256:{item['sha256']}" for item in blobs or ()}
        for field in ("digest", "config_digest"):
            if row[field] not in known:
                yield f"{where}: {field} {row[field]} is not among its blobs"


def _models(section: Mapping[str, Any]) -> Iterator[str]:
    rows = [{**row, "name": name} for name, row in section.items() if isinstance(row, Mapping)]
    yield from (f"models.{name} is not a mapping" for name, row in section.items() if not isinstance(row, Mapping))
    try:
        # Whether pickles and programs are wanted is for the site to say.
        parse_models(rows, [str(name) for name in section], [str(name) for name in section])
    except Refusal as refusal:
        yield from (f"models: {problem}" for problem in refusal.problems)
    for row in rows:
        wrong = origin_problem(row.get("origin"))
        if wrong:
            yield f"models.{row['name']}: origin {wrong}"


def _python(section: Mapping[str, Any]) -> Iterator[str]:
    files = section.get("files")
    yield from _list("python.files", files, _WHEEL, "file")
    if not isinstance(section.get("targets", []), list):
        yield "python.targets is not a list"
    if isinstance(files, list):
        yield from _twice("python.files", (item.get("file") for item in files if isinstance(item, Mapping)))


def _project(section: Mapping[str, Any]) -> Iterator[str]:
    if section:
        yield from _row("project", section, _PROJECT)


def _keys(section: list[Any]) -> Iterator[str]:
    yield from _list("keys", section, _KEY, "name")


_JUDGES: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "platforms": _platforms,
    "images": _images,
    "models": _models,
    "python": _python,
    "project": _project,
    "keys": _keys,
}
