# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""From wishes to a DNF platform's part of a lock: every package resolved, fetched, its signature proved, and listed.

RPM's lists are made of the files themselves, so these are fetched when the lock is made. Standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, plural
from ansible.module_utils.closure.debs import fetch
from ansible.module_utils.closure.dnf_root import DnfRoot
from ansible.module_utils.closure.platforms import MACHINES, Platform
from ansible.module_utils.closure.repos import Source
from ansible.module_utils.closure.resolve import Wish, digest
from ansible.module_utils.closure.rpms import entry, repodata
from ansible.module_utils.openpgp import fingerprints

BASE, BOOTSTRAP, TOGETHER = "the base system", "the names under bootstrap", "all roles together"
GROUP = "core"  # what every installation of such a platform has
SHA256 = re.compile("[0-9a-fA-F]{64}")
Row = Mapping[str, Any]


@dataclass
class RpmClosure:
    """The packages of a platform by name, as dnf_program says them; names of the base system's and of bootstrap's."""

    packages: dict[str, Row] = field(default_factory=dict)
    base: set[str] = field(default_factory=set)
    bootstrap: set[str] = field(default_factory=set)
    urls: Mapping[str, str] = field(default_factory=dict)


def question(platform: Platform, wish: Wish, streams: Sequence[str]) -> dict[str, Any]:
    """What dnf_program is asked. Each role is asked for with the base system and nothing else, as a host may be."""
    roles = {role: sorted(names) for role, names in sorted(wish.roles.items()) if names}
    asks = {BASE: [*wish.base_packages], BOOTSTRAP: [*wish.bootstrap]}
    asks.update({f"role {role}": [*wish.base_packages, *names] for role, names in roles.items()})
    if len(roles) > 1:
        asks[TOGETHER] = [*wish.base_packages, *(name for names in roles.values() for name in names)]
    major = platform.version.partition(".")[0]
    return {
        "machine": MACHINES[platform.architecture],
        "releasever": platform.version,
        "module_platform": f"platform:el{major}",
        "streams": [*streams],
        "groups": {name: [GROUP] for name in asks if name != BOOTSTRAP},
        "asks": {name: [_spec(one) for one in names] for name, names in asks.items()},
    }


def joined(platform: Platform, wish: Wish, answer: Mapping[str, Any]) -> RpmClosure:
    """The closure from dnf_program's answer. Raises Refusal: what cannot be had, and what has two versions."""
    if answer["problem"]:
        raise Refusal(f"{platform.name}: the package lists cannot be used: {answer['problem']}")
    found = RpmClosure(urls=answer["urls"])
    problems = []
    for name, told in answer["asks"].items():
        # Roles that exclude each other, as two engines, are fine: no host has both.
        if told["problem"] and name != TOGETHER:
            problems.append(
                f"{platform.name}: {name} cannot be resolved from these package sources: {told['problem']}. Add the"
                " repository that has what is missing, or correct the names"
            )
    if problems:
        raise Refusal(problems)
    found.base = {row["name"] for row in answer["asks"][BASE]["rows"]}
    found.bootstrap = {row["name"] for row in answer["asks"][BOOTSTRAP]["rows"]}
    for name, told in answer["asks"].items():
        for row in told["rows"]:
            _add(found, row, name, platform)
    return found


def _add(found: RpmClosure, row: Row, where: str, platform: Platform) -> None:
    present = found.packages.setdefault(row["name"], row)
    same = all(present[key] == row[key] for key in ("version", "architecture"))
    if not same and row["name"] not in found.base:
        raise Refusal(
            f"{platform.name}: {where} brings {row['name']} {row['version']}, another part of the lock"
            f" {present['version']}. A platform has one version of a package: make the wishes agree"
        )
    found.packages[row["name"]] = row


def resolve(
    root: DnfRoot, platform: Platform, wish: Wish, sources: list[Source], streams: Sequence[str], files: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping of `platforms.NAME` in a lock, and {path: text} of its lists; the packages are in `files` then."""
    if wish.base_status is not None:
        raise Refusal("base_status is dpkg's: name the packages of a DNF platform's base system in base_packages")
    found = joined(platform, wish, root.ask(sources, question(platform, wish, streams)))
    told = sorted(found.packages.values(), key=lambda row: str(row["name"]))
    unproved = [row["name"] for row in told if row["sum"][0] != "sha256" or not SHA256.fullmatch(row["sum"][1])]
    if unproved:
        raise Refusal(f"the repository has no SHA-256 for {', '.join(unproved)}, so their bytes could not be proved")
    rows = [entry(row, base=row["name"] in found.base, bootstrap=row["name"] in found.bootstrap) for row in told]
    fetch(rows, files, root.timeout, check=False)
    _prove(root, sources, told, rows, files)
    texts = repodata(root.lists(files, [row["path"] for row in rows]))
    base = [{key: row[key] for key in ("name", "version", "architecture")} for row in rows if row["name"] in found.base]
    return {
        "base": {"name": wish.base, "packages": base, "digest": digest(base)},
        "repositories": [_repository(source, found.urls.get(source.name, "")) for source in sources],
        "wishes": {role: sorted(names) for role, names in sorted(wish.roles.items()) if names},
        "bootstrap": sorted(wish.bootstrap),
        "packages": rows,
        "indexes": [
            {"path": path, "sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text.encode())}
            for path, text in sorted(texts.items())
        ],
    }, texts


def _prove(root: DnfRoot, sources: list[Source], told: Sequence[Row], rows: Sequence[Row], files: Path) -> None:
    """See that a known key signed each package of the repositories that promise so. Raises Refusal."""
    problems = []
    for source in sources:
        own = [files / row["path"] for said, row in zip(told, rows) if said["repository"] == source.name]
        if source.packages_signed and own:
            wrong = root.unsigned(own, source.keys)
            problems += [f"{name} of [{source.name}] has no good signature of its keys" for name in wrong]
    if problems:
        raise Refusal(
            [
                f"{plural(len(problems), 'package')} cannot be trusted, so no lock is made:",
                *problems,
                "Name the key that signs them under gpgkey after you have proved it, or leave the repository out.",
            ]
        )


def _repository(source: Source, url: str) -> dict[str, Any]:
    keys: set[str] = set()
    for path in source.keys:
        try:
            keys.update(fingerprints(Path(path).read_bytes()))
        except (OSError, ValueError) as error:
            raise Refusal(f"package source [{source.name}]: the key {path} is not usable: {error}") from error
    return {"name": source.name, "uri": url, "suite": source.name, "components": [], "fingerprints": sorted(keys)}


def _spec(wanted: str) -> str:
    """NAME=VERSION as DNF wants it."""
    return wanted.replace("=", "-", 1)
