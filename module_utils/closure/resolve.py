# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""From wishes to a platform's part of a lock: the base system, and all that the wishes bring onto it with APT.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure.apt_root import SAID, AptRoot
from ansible.module_utils.closure.platforms import Platform
from ansible.module_utils.closure.signers import owners, who_signed
from ansible.module_utils.closure.stanzas import Available, as_status, entry, index, installed

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Wish:
    """What shall be resolved: the base system, what each role wants on it, and what a bare host begins with."""

    roles: Mapping[str, Sequence[str]]
    bootstrap: Sequence[str] = ()
    base: str = "minimal"
    base_packages: Sequence[str] = ()
    base_status: Optional[str] = None


@dataclass
class Closure:
    """The packages of a platform: those of the base system, and all of them; both by name."""

    base: list[dict[str, str]]
    packages: dict[str, Available]
    base_names: set[str] = field(default_factory=set)
    bootstrap: set[str] = field(default_factory=set)


def digest(value: Any) -> str:
    """sha256: of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Resolver:
    """Asks an AptRoot whose lists are fetched. Raises Refusal throughout."""

    def __init__(self, root: AptRoot, platform: Platform) -> None:
        self.root, self.platform = root, platform
        self.known: dict[Key, Available] = {}
        self.always: set[str] = set()
        for package, is_base in root.packages():
            self.known.setdefault(package.key, package)
            if is_base:
                self.always.add(package.name)

    def closure(self, wish: Wish) -> Closure:
        """All packages that the wish brings, the base system's own among them."""
        if wish.base_status is None:
            self.root.status("")
            found = self._with([*self.always, *wish.base_packages], "the base system")
            base = [{"name": row.name, "version": row.version, "architecture": row.architecture} for row in found]
            status = as_status(found)
        else:
            base, status = installed(wish.base_status), wish.base_status
            found = [self.known[key] for key in map(_key, base) if key in self.known]
        result = Closure(sorted(base, key=lambda row: row["name"]), {})
        result.base_names = {row["name"] for row in base}
        self._add(result, found, "the base system")
        self.root.status("")
        bare = self._with(wish.bootstrap, "the names under bootstrap") if wish.bootstrap else []
        result.bootstrap = {row.name for row in bare}
        self._add(result, bare, "the names under bootstrap")
        self.root.status(status)
        roles = {role: names for role, names in sorted(wish.roles.items()) if names}
        for role, names in roles.items():  # alone, since a host may have this one only
            self._add(result, self._with(names, f"role {role}"), f"role {role}")
        if len(roles) > 1:
            keys, excluding = self.root.resolve(name for names in roles.values() for name in names)
            # Roles that exclude each other, as two engines, are fine: no host has both.
            if not excluding:
                self._add(result, self._known(keys), "all roles together")
        return result

    def _with(self, names: Iterable[str], where: str) -> list[Available]:
        """The packages that installing these would bring."""
        wanted = list(names)
        keys, problem = self.root.resolve(wanted)
        if problem:
            raise Refusal(
                f"{self.platform.name}: {where} cannot be resolved from these package sources: {_words(problem)}."
                f" It asks for {', '.join(sorted(wanted)[:20])}. Add the repository that has them, or correct the names"
            )
        return self._known(keys)

    def _known(self, keys: Sequence[Key]) -> list[Available]:
        """What the lists say of these."""
        lacking = [key[0] for key in keys if key not in self.known]
        if lacking:
            raise Refusal(f"{self.platform.name}: APT names packages that no list has: {', '.join(lacking)}")
        return [self.known[key] for key in keys]

    def _add(self, result: Closure, found: Iterable[Available], where: str) -> None:
        for package in found:
            present = result.packages.setdefault(package.name, package)
            if present.key != package.key and package.name not in result.base_names:
                raise Refusal(
                    f"{self.platform.name}: {where} brings {package.name} {package.version}, another part of the lock"
                    f" {present.version}. A platform has one version of a package: make the wishes agree"
                )
            result.packages[package.name] = package


def document(root: AptRoot, wish: Wish, closure: Closure, keys: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """The mapping of `platforms.NAME` in a lock, and the text of its list of packages."""
    rows = sorted(closure.packages.values(), key=lambda row: row.key)
    unproved = [row.name for row in rows if not re.search("^SHA256: *[0-9a-f]{64}$", row.stanza, re.MULTILINE)]
    if unproved:
        raise Refusal(f"the repository has no SHA-256 for {', '.join(unproved)}, so their bytes could not be proved")
    text = index(rows)
    data = text.encode()
    return {
        "base": {
            "name": wish.base if wish.base_status is None else "given",
            "packages": closure.base,
            "digest": digest(closure.base),
        },
        "repositories": repositories(root, keys),
        "wishes": {role: sorted(names) for role, names in sorted(wish.roles.items()) if names},
        "bootstrap": sorted(wish.bootstrap),
        "packages": [
            entry(row, base=row.name in closure.base_names, bootstrap=row.name in closure.bootstrap) for row in rows
        ],
        "indexes": [{"path": "Packages", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}],
    }, text


def repositories(root: AptRoot, keys: Sequence[Path]) -> list[dict[str, Any]]:
    """Each repository with its components and the keys that signed it, in the order of the sources."""
    known = owners(path.read_bytes() for path in keys if path.is_file())
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for target in root.targets():
        row = found.setdefault(
            (target.uri, target.suite),
            {
                "name": _slug(target.uri, target.suite),
                "uri": target.uri,
                "suite": target.suite,
                "components": [],
                "fingerprints": who_signed(root.signed(target), known),
            },
        )
        if target.component and target.component not in row["components"]:
            row["components"].append(target.component)
    return list(found.values())


def _slug(uri: str, suite: str) -> str:
    last = uri.rstrip("/").rpartition("/")[2] or "repository"
    return re.sub("[^a-z0-9]+", "-", f"{last}-{suite}".lower()).strip("-")


def _key(row: Mapping[str, str]) -> Key:
    return row["name"], row["version"], row["architecture"]


def _words(said: str) -> str:
    """APT's reasons: its errors, and which packages cannot be installed."""
    lines = [line.strip() for line in said.splitlines()]
    told = [line for line in lines if line.startswith("E:") or " : " in line or "Depends:" in line]
    return "; ".join(told or lines[-3:])[:SAID]
