# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""APT's package lists: read, chosen from, and written again as a lock's own list. Pure.

A stanza is one package's text as in a `Packages` file, without the empty line behind it. Standard library only,
Python 3.9+.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Fields that say nothing about a package's bytes or change without it (debtags, staged upgrades), or that weaker sums
# fill; the SHA-256 stays.
DROPPED = frozenset({"description-md5", "filename", "md5sum", "phased-update-percentage", "sha1", "sha512", "tag"})
ALWAYS = ("required", "important")
KEY = re.compile(r"^(Package|Version|Architecture|Essential|Priority): *(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Available:
    """A package that a repository has: its stanza, and the address that its Filename is relative to."""

    name: str
    version: str
    architecture: str
    stanza: str
    repository: str

    @property
    def key(self) -> tuple[str, str, str]:
        """(name, version, architecture)."""
        return self.name, self.version, self.architecture


def split(text: str) -> Iterator[str]:
    """The stanzas of a package list or of dpkg's status file."""
    for stanza in text.split("\n\n"):
        bare = stanza.strip("\n")
        if bare:
            yield bare


def fields(stanza: str) -> dict[str, str]:
    """Every field of a stanza by its name in lower case; lines that go on keep their line breaks."""
    found: dict[str, str] = {}
    last = ""
    for line in stanza.split("\n"):
        if line[:1] in (" ", "\t"):
            found[last] = f"{found[last]}\n{line}" if last else line
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            found[last] = value.strip()
    return found


def available(text: str, repository: str) -> Iterator[tuple[Available, bool]]:
    """Each package of a list, with whether every system has it (Essential, or priority required or important)."""
    for stanza in split(text):
        head = dict(KEY.findall(stanza))
        base = head.get("Essential") == "yes" or head.get("Priority") in ALWAYS
        if "Package" in head and "Version" in head:
            row = Available(head["Package"], head["Version"], head.get("Architecture", ""), stanza, repository)
            yield row, base


def installed(status: str) -> list[dict[str, str]]:
    """{name, version, architecture} of what dpkg's status file says is installed, sorted."""
    rows = []
    for stanza in split(status):
        known = fields(stanza)
        if known.get("status", "").split()[-1:] == ["installed"]:
            rows.append({key: known.get(key, "") for key in ("package", "version", "architecture")})
    found = [{"name": row["package"], "version": row["version"], "architecture": row["architecture"]} for row in rows]
    return sorted(found, key=lambda row: (row["name"], row["architecture"]))


def as_status(packages: Iterable[Available]) -> str:
    """dpkg's status file of a system that has just these installed."""
    return "".join(
        f"{row.stanza}\nStatus: install ok installed\n\n" for row in sorted(packages, key=lambda row: row.key)
    )


def pool_path(package: Available) -> str:
    """Where a depot's view has a package: pool/d/docker.io_26.1.5_amd64.deb, without the version's epoch."""
    version = package.version.partition(":")[2] or package.version
    return f"pool/{package.name[0]}/{package.name}_{version}_{package.architecture}.deb"


def entry(package: Available, *, base: bool, bootstrap: bool) -> dict[str, Any]:
    """A lock's row for a package. Raises KeyError where its stanza lacks a sum, a size or a file name."""
    known = fields(package.stanza)
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "sha256": known["sha256"].lower(),
        "size": int(known["size"]),
        "path": pool_path(package),
        "origin": f"{package.repository.rstrip('/')}/{re.sub('^(?:[.]/)+', '', known['filename'])}",
        "base": base,
        "bootstrap": bootstrap,
    }


def index(packages: Iterable[Available]) -> str:
    """The `Packages` text of a depot's repository with these, sorted by name; the same for the same packages."""
    return "".join(f"{_rewritten(row)}\n\n" for row in sorted(packages, key=lambda row: row.key))


def _rewritten(package: Available) -> str:
    lines, kept = [], True
    for line in package.stanza.split("\n"):
        if line[:1] not in (" ", "\t"):
            kept = line.partition(":")[0].strip().lower() not in DROPPED
        if kept:
            lines.append(line.rstrip())
    return "\n".join([*lines, f"Filename: {pool_path(package)}"])


def by_name(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """A lock's rows by package name."""
    return {row["name"]: row for row in rows}
