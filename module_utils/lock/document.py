# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""A lock as one mapping: its digest over all that it lists, and what is wrong with it, everything at once. Pure.

Standard library only, Python 3.9+. The mapping:

    schema: 1, site, serial (from 1, one more with each change), digest (see `digest`)
    platforms: {NAME: {base, repositories, wishes, bootstrap, packages: [...], indexes: [...]}}
    images:    {KEY: {name, tag, digest, config_digest, origin, platforms, blobs: [...]}}
    models:    {NAME: {revision, license, origin, files: [{path, size, sha256}]}}
    python:    {requirements, targets, files: [{name, version, file, sha256, size, origin}]}
    project:   {version, commit, file, sha256, size}, or empty
    keys:      [{name, fingerprint}]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal

from .parts import parts
from .rows import SECTIONS, SITE, section_problems

SCHEMA = 1
# What the digest leaves out: it stands for what may be installed, not for how often that changed.
UNSIGNED = frozenset({"schema", "serial", "digest"})
EMPTY: Mapping[str, Any] = {
    "platforms": {},
    "images": {},
    "models": {},
    "python": {"requirements": "", "targets": [], "files": []},
    "project": {},
    "keys": [],
}
SHORT = 12
LONGEST_SITE = 64


def canonical(document: object) -> bytes:
    """Return plain data as JSON with sorted keys and no spaces: the same data gives the same bytes everywhere."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(lock: Mapping[str, Any]) -> str:
    """Return ``sha256:…`` over everything that a lock lists, and its site."""
    body = {key: value for key, value in lock.items() if key not in UNSIGNED}
    return f"sha256:{hashlib.sha256(canonical(body)).hexdigest()}"


def short(lock: Mapping[str, Any]) -> str:
    """Return the first digits of a lock's digest, which name its view in a depot."""
    return str(lock["digest"]).rpartition(":")[2][:SHORT]


def sealed(body: Mapping[str, Any], site: str, former: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the lock of these sections: the former one when nothing changed, else with the next serial. Pure."""
    made = {**EMPTY, **body, "site": site}
    stated = digest(made)
    serial = int(former["serial"]) if former else 0
    if not former or former["digest"] != stated:
        serial += 1
    return {"schema": SCHEMA, **made, "serial": serial, "digest": stated}


def checked(lock: object, where: str = "the lock") -> dict[str, Any]:
    """Return the lock if nothing is wrong with it. Raises Refusal with every problem."""
    found = [f"{where}: {problem}" for problem in problems(lock)]
    if found:
        raise Refusal(found)
    return dict(lock)  # type: ignore[call-overload, no-any-return]  # problems() has seen that it is a mapping


def problems(lock: object) -> list[str]:
    """Return what is wrong with a lock, in the order of its sections; nothing when it is good."""
    if not isinstance(lock, Mapping):
        return [f"is {type(lock).__name__}, not a mapping"]
    found = list(_identity(lock))
    for name, kind in SECTIONS.items():
        if name not in lock:
            found.append(f"{name} is missing; write the lock again: ./redoubt play lock")
        elif not isinstance(lock[name], kind):
            found.append(f"{name} is {type(lock[name]).__name__}, not a {'list' if kind is list else 'mapping'}")
        else:
            found += section_problems(name, lock[name])
    unknown = sorted(set(map(str, lock)) - set(SECTIONS) - UNSIGNED - {"site"})
    if unknown:
        found.append(f"{', '.join(unknown)}: no such part; a lock has {', '.join(SECTIONS)}")
    if not found:
        found += _clashes(lock)
    if not found and lock["digest"] != digest(lock):
        found.append(
            f"digest is {lock['digest']}, its content has {digest(lock)}: somebody edited it by hand, or a merge mixed"
            " two locks. Take one side whole (git checkout), or make it anew: ./redoubt play lock"
        )
    return found


def _identity(lock: Mapping[str, Any]) -> Iterator[str]:
    if lock.get("schema") != SCHEMA:
        yield f"schema is {lock.get('schema')!r}; this version of Redoubt reads schema {SCHEMA}"
    site, serial, stated = lock.get("site"), lock.get("serial"), lock.get("digest")
    if not is_site(site):
        yield (
            f"site is {site!r}; a site's name has up to {LONGEST_SITE} lower-case letters and digits, and single '-',"
            " '_' or '.' between them"
        )
    if not isinstance(serial, int) or isinstance(serial, bool) or serial < 1:
        yield f"serial is {serial!r}, not a number from 1 on"
    if not isinstance(stated, str) or not stated.startswith("sha256:"):
        yield f"digest is {stated!r}, not sha256: and 64 lower-case hex digits"


def is_site(name: object) -> bool:
    """Tell whether this can be the name of a site: a folder, a part of an address and of an image's name."""
    return isinstance(name, str) and len(name) <= LONGEST_SITE and SITE.fullmatch(name) is not None


def _clashes(lock: Mapping[str, Any]) -> Iterator[str]:
    """Two parts at one place, or one digest with two sizes."""
    places: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for part in parts(lock):
        if places.setdefault(part.path, part.sha256) != part.sha256:
            yield f"{part.path} is listed with two contents"
        if sizes.setdefault(part.sha256, part.size) != part.size:
            yield f"{part.path}: sha256 {part.sha256} is listed with {sizes[part.sha256]} and with {part.size} bytes"
