"""Getters for one field of operator's data: they return the typed value, or None after noting the problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from planner.problems import Problems


@dataclass(frozen=True)
class Pattern:
    """A form that a text must have, with the words to say it."""

    regex: re.Pattern[str]
    meaning: str
    fix: str


MODEL_NAME = Pattern(
    re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"),
    "a model's name is 1 to 63 lower-case letters, digits, dots, dashes or underscores",
    "write it such as qwen2.5-7b-instruct",
)
DIGEST = Pattern(
    re.compile(r"sha256:[0-9a-f]{64}"), "it is not a digest", "write sha256: and the 64 hexadecimal digits of the lock"
)
SHA256 = Pattern(re.compile(r"[0-9a-f]{64}"), "it is not a SHA-256", "write 64 hexadecimal digits")
REVISION = Pattern(
    re.compile(r"[0-9a-f]{40}"),
    "a revision is a full commit, not a branch or a tag",
    "write the 40 hexadecimal digits of the commit",
)
REPO = Pattern(
    re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*"),
    "it is not the name of a repository",
    "write it as the hub does, such as Qwen/Qwen2.5-7B-Instruct",
)
BALANCE = Pattern(
    re.compile("least_conn|conversation"),
    "it is no way to spread requests over the hosts that serve a model",
    "write least_conn (evenly) or conversation (a conversation's turns go to one host)",
)
SIZE = Pattern(re.compile(r"[1-9][0-9]*[bkmg]"), "it is not a size", "write a number and b, k, m or g, such as 8g")


def text(
    raw: Mapping[str, object],
    key: str,
    where: str,
    problems: Problems,
    *,
    pattern: Pattern | None = None,
    optional: bool = False,
) -> str | None:
    """Return a text field, checked against a pattern; None when absent or wrong."""
    value = raw.get(key)
    place = f"{where}.{key}"
    if value is None:
        if not optional:
            problems.add(place, "it is missing", f"add `{key}`")
        return None
    if not isinstance(value, str) or not value:
        problems.add(place, "it is not text", "write text, in quotes where it looks like a number", value)
        return None
    if pattern is not None and not pattern.regex.fullmatch(value):
        problems.add(place, pattern.meaning, pattern.fix, value)
        return None
    return value


def integer(
    raw: Mapping[str, object],
    key: str,
    where: str,
    problems: Problems,
    *,
    low: int,
    high: int | None = None,
    required: bool = False,
) -> int | None:
    """Return a whole number within bounds; None when absent or wrong."""
    value = raw.get(key)
    place = f"{where}.{key}"
    if value is None:
        if required:
            problems.add(place, "it is missing", f"add `{key}`")
        return None
    within = f"from {low} to {high}" if high is not None else f"of at least {low}"
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        problems.add(place, f"it is not a whole number {within}", f"write a number {within}", value)
        return None
    return value


def number(raw: Mapping[str, object], key: str, where: str, problems: Problems) -> float | None:
    """Return a number above zero; None when absent or wrong."""
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        problems.add(f"{where}.{key}", "it is not a number above 0", "write a number, such as 2 or 1.5", value)
        return None
    return float(value)


def mapping(raw: Mapping[str, object], key: str, place: str, problems: Problems) -> Mapping[str, object]:
    """Return a mapping; an empty one when absent or wrong."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        problems.add(place, "it is not a mapping", "write `name: value` lines", value)
        return {}
    return {str(name): item for name, item in value.items()}


def manifest(
    raw: Mapping[str, object], where: str, total_size: int | None, problems: Problems
) -> tuple[Mapping[str, object], ...] | None:
    """Return the file list of a model's lock, each {path, size, sha256}; None when it cannot be trusted."""
    files = raw.get("files")
    again = "make the lock again; do not write it by hand"
    if not isinstance(files, list | tuple) or not files:
        problems.add(f"{where}.files", "the manifest names no files", again)
        return None
    result: list[Mapping[str, object]] = []
    for index, entry in enumerate(files):
        place = f"{where}.files[{index}]"
        if not isinstance(entry, Mapping):
            problems.add(place, "a file is {path, size, sha256}", again, entry)
            return None
        path = text(entry, "path", place, problems)
        size = integer(entry, "size", place, problems, low=0, required=True)
        digest = text(entry, "sha256", place, problems, pattern=SHA256)
        if path is None or size is None or digest is None:
            return None
        if path.startswith("/") or ".." in path.split("/"):
            problems.add(f"{place}.path", "the path leaves the model's folder", again, path)
            return None
        result.append({"path": path, "size": size, "sha256": digest})
    if total_size is not None and sum(int(str(item["size"])) for item in result) != total_size:
        problems.add(f"{where}.total_size", "it is not the sum of the files' sizes", again, total_size)
        return None
    return tuple(result)
