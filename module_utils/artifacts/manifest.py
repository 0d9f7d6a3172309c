"""Lists of model files (path, size, sha256) as the lock states them, checked before anything is touched. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import Refusal

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
REPO = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
# Loading one of these can run code that hides in it (Python's pickle).
PICKLE_SUFFIXES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
SHORT = 12
LONGEST_PATH = 1024
LONGEST_SEGMENT = 255


@dataclass(frozen=True)
class FileEntry:
    """One file of a model: its path below the model's folder, its size in bytes, its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """One revision of a model and every file that belongs to it; `repo` is its name on a hub, '' for none."""

    name: str
    revision: str
    files: tuple[FileEntry, ...]
    repo: str = ""

    @property
    def folder(self) -> str:
        """Where the revision is published, below the models' directory."""
        return f"{self.name}/{self.revision[:SHORT]}"

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def path_problem(path: object) -> str | None:
    """Say why a file's path cannot be used, or None. A good path names a file strictly below its model's folder."""
    if not isinstance(path, str) or not path:
        return "is not a text"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "holds a control character"
    if not path.isprintable():
        return "holds a character that cannot be printed"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    segments = path.split("/")
    if ".." in segments:
        return "leaves its folder"
    if "" in segments or "." in segments:
        return "has an empty or '.' segment"
    if len(path.encode()) > LONGEST_PATH or max(len(segment.encode()) for segment in segments) > LONGEST_SEGMENT:
        return "is too long"
    return None


def parse_models(
    raw: Sequence[Mapping[str, Any]], allow_pickle: Collection[str] = (), allow_code: Collection[str] = ()
) -> list[Model]:
    """Turn ``[{name, revision, files: [{path, size, sha256}], repo}]`` into models.

    ``allow_pickle`` and ``allow_code`` name models (or ``name/path``) whose pickle files and whose Python files are
    wanted. Raises Refusal with every problem.
    """
    problems: list[str] = []
    models: list[Model] = []
    seen: set[str] = set()
    for index, item in enumerate(raw):
        name, revision = item.get("name"), item.get("revision")
        where = f"model {name!r}" if isinstance(name, str) and name else f"model number {index + 1}"
        found = list(_identity_problems(name, revision, seen))
        repo = item.get("repo") or ""
        if not isinstance(repo, str) or (repo and not REPO.fullmatch(repo)):
            found.append(f"repo is {repo!r}; write it as the hub does: organization/name")
        if isinstance(name, str):
            seen.add(name)
        files = item.get("files")
        entries: list[FileEntry] = []
        if not files or not isinstance(files, Sequence) or isinstance(files, str):
            found.append("has no manifest (files is empty): add its files with size and sha256 to redoubt_model_locks")
        else:
            entries, wrong = _entries(files)
            found += wrong
            found += _clashes(entries)
            found += _pickles(str(name), entries, allow_pickle)
            found += _code(str(name), entries, allow_code)
        problems += [f"{where}: {problem}" for problem in found]
        if not found:
            models.append(Model(str(name), str(revision), tuple(entries), item.get("repo") or ""))
    if problems:
        raise Refusal(problems)
    return models


def _identity_problems(name: object, revision: object, seen: Collection[str]) -> Iterator[str]:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield "name must begin with a letter or digit and hold only letters, digits, '.', '_' and '-'"
    elif name in seen:
        yield "is listed twice; give each model one revision"
    if not isinstance(revision, str) or not REVISION.fullmatch(revision):
        yield f"revision is {revision!r}, not a commit of 40 hex digits; a branch or tag can change its bytes"


def _entries(files: Sequence[Any]) -> tuple[list[FileEntry], list[str]]:
    entries: list[FileEntry] = []
    problems: list[str] = []
    for item in files:
        if not isinstance(item, Mapping):
            problems.append(f"files holds {item!r}, not a mapping with path, size and sha256")
            continue
        path, size, digest = item.get("path"), item.get("size"), item.get("sha256")
        wrong = path_problem(path)
        if wrong:
            problems.append(f"path {path!r} {wrong}; use a path below the model's folder")
        elif not isinstance(size, int) or isinstance(size, bool) or size < 0:
            problems.append(f"{path}: size is {size!r}, not a number of bytes")
        elif not isinstance(digest, str) or not SHA256.fullmatch(digest):
            problems.append(f"{path}: sha256 is {digest!r}, not 64 lower-case hex digits")
        else:
            entries.append(FileEntry(str(path), size, digest))
    return entries, problems


def _clashes(entries: Sequence[FileEntry]) -> Iterator[str]:
    paths: set[str] = set()
    folded: dict[str, str] = {}
    for entry in entries:
        other = folded.setdefault(entry.path.casefold(), entry.path)
        if entry.path in paths:
            yield f"{entry.path} is listed twice"
        elif other != entry.path:
            yield f"{entry.path} and {other} differ in case only, which some media do not keep apart"
        paths.add(entry.path)
    for path in sorted(paths):
        for parent in parents(path):
            if parent in paths:
                yield f"{parent} is listed as a file and as the folder of {path}"


def parents(path: str) -> list[str]:
    """Return the folders above a path, outermost first: 'a/b/c' gives ['a', 'a/b']."""
    segments = path.split("/")[:-1]
    return ["/".join(segments[: count + 1]) for count in range(len(segments))]


def _pickles(name: str, entries: Sequence[FileEntry], allowed: Collection[str]) -> Iterator[str]:
    for entry in entries:
        if entry.path.lower().endswith(PICKLE_SUFFIXES) and not _is_allowed(name, entry, allowed):
            yield (
                f"{entry.path} is of a pickle format, which can run code when it is loaded; use the .safetensors "
                f"files, or add '{name}/{entry.path}' to weights_allow_pickle"
            )


def _code(name: str, entries: Sequence[FileEntry], allowed: Collection[str]) -> Iterator[str]:
    for entry in entries:
        if entry.path.lower().endswith(".py") and not _is_allowed(name, entry, allowed):
            yield (
                f"{entry.path} is a program, which an engine runs with trust_remote_code; read it, then add "
                f"'{name}/{entry.path}' to weights_allow_code, or take it out of the lock"
            )


def _is_allowed(name: str, entry: FileEntry, allowed: Collection[str]) -> bool:
    return name in allowed or f"{name}/{entry.path}" in allowed
