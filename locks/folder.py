"""A lock's folder: YAML in git, one artefact a line, so that a diff shows what changes on the hosts.

lock.yml                     {schema, site, serial, digest}; written last
platforms/NAME.yml           a platform's packages
platforms/NAME.packages      its package list, which a depot serves
platforms/NAME.repodata/…    its package lists, where DNF installs
images.yml  models.yml  python.yml  project.yml  keys.yml
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from locks import text

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip
from ansible.module_utils.config_files import write_atomically  # isort: skip
from ansible.module_utils.lock.document import checked  # isort: skip
from ansible.module_utils.lock.rows import SECTIONS  # isort: skip

HEAD = "lock.yml"
HEAD_FIELDS = ("schema", "site", "serial", "digest")
PLATFORMS = "platforms"
APT_INDEX = "Packages"
APT_SUFFIX, DNF_SUFFIX = ".packages", ".repodata"
NOTE = "# Written by `redoubt play lock`: do not edit, but review and commit.\n"
MODE = 0o644
MAKE = "make it: ./redoubt play lock"


def load(folder: Path) -> dict[str, Any]:
    """Return the lock in this folder, checked. Raises Refusal with every problem, also where there is none."""
    first = _read(folder / HEAD)
    if first is None:
        raise Refusal(f"{folder}: there is no lock (no {HEAD}); {MAKE}")
    lock: dict[str, Any] = {key: first[key] for key in HEAD_FIELDS if key in first}
    problems = [f"{folder / HEAD}: {key}: no such field" for key in sorted(set(first) - set(HEAD_FIELDS))]
    lock["platforms"] = {}
    for path in sorted((folder / PLATFORMS).glob("*.yml")):
        lock["platforms"][path.stem] = _read(path) or {}
    for name, kind in SECTIONS.items():
        if name == "platforms":
            continue
        content = _read(folder / f"{name}.yml")
        if content is None:
            problems.append(f"{folder / name}.yml is missing; take it from git, or {MAKE}")
        else:
            lock[name] = content.get(name, kind())
            problems += [f"{folder / name}.yml: {key}: no such field" for key in sorted(set(content) - {name})]
    if problems:
        raise Refusal(problems)
    result: dict[str, Any] = checked(lock, str(folder))
    return result


def head(folder: Path) -> dict[str, Any]:
    """Return what lock.yml says, unchecked; empty where it cannot be read."""
    try:
        return _read(folder / HEAD) or {}
    except Refusal:
        return {}


def index_file(platform: str, path: str) -> str:
    """Return where a platform's package list with this path in the repository lies, relative to the lock's folder."""
    return f"{PLATFORMS}/{platform}{APT_SUFFIX if path == APT_INDEX else f'.{path}'}"


def read_index(folder: Path, platform: str, row: Mapping[str, Any]) -> bytes:
    """Return a package list of a platform, proved against its lock. Raises Refusal."""
    path = folder / index_file(platform, row["path"])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; take it from git, or {MAKE}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != row["sha256"]:
        raise Refusal(f"{path}: expected sha256 {row['sha256']}, found {found}; take it from git, or {MAKE}")
    return data


def write(
    folder: Path, lock: Mapping[str, Any], indexes: Mapping[str, Mapping[str, str]], *, check: bool = False
) -> list[str]:
    """Write a lock and its package lists {platform: {path: text}}; return the files that changed, relative to it.

    Each file is replaced whole and lock.yml last: a run that was cut leaves a digest that does not fit, which is told.
    Raises OSError.
    """
    texts = {f"{name}.yml": NOTE + text.dump({name: lock[name]}) for name in SECTIONS if name != "platforms"}
    for platform, row in lock["platforms"].items():
        texts[f"{PLATFORMS}/{platform}.yml"] = NOTE + text.dump(row)
        texts.update({index_file(platform, path): made for path, made in indexes.get(platform, {}).items()})
    texts[HEAD] = NOTE + text.dump({key: lock[key] for key in HEAD_FIELDS})
    changed = []
    for name, made in texts.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != made.encode():
            changed.append(name)
            if not check:
                write_atomically(str(path), made.encode(), MODE, *_owner(folder))
    for path in sorted((folder / PLATFORMS).glob("*")):
        if path.suffix in (".yml", APT_SUFFIX, DNF_SUFFIX) and path.stem not in lock["platforms"]:
            changed.append(f"{PLATFORMS}/{path.name}")
            if not check:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return changed


def _owner(folder: Path) -> tuple[int, int]:
    """Whoever owns the folder that is there owns what is written: the checkout may not be root's."""
    while not folder.is_dir():
        folder = folder.parent
    found = os.stat(folder)
    return (found.st_uid, found.st_gid) if os.geteuid() == 0 else (-1, -1)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as stream:
            content = text.parse(stream.read().decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).replace("\n", " ")
        raise Refusal(f"{path}: is not YAML ({first[:200]}); take it from git, or {MAKE}") from error
    if not isinstance(content, dict):
        raise Refusal(f"{path}: holds {type(content).__name__}, not a mapping; take it from git, or {MAKE}")
    return content


def platforms(folder: Path) -> list[str]:
    """Return the names of the platforms that a folder has; none where there is no lock."""
    return sorted(path.stem for path in (folder / PLATFORMS).glob("*.yml"))
