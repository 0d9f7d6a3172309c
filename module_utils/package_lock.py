# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What the lock lets a host install: the host's packages.json, and what it says about a transaction of APT's.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible.module_utils.closure.platforms import UnknownPlatform, parse
from ansible.module_utils.closure.stanzas import fields, split

PATH = "/etc/redoubt/packages.json"
# APT's preferences while Redoubt installs; the host's own are not read then.
PREFERENCES = "/var/lib/redoubt/apt/strict.pref"
PINS_ONLY = "/var/lib/redoubt/apt/pins.pref"  # to find out what APT would take besides
COMING = re.compile(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+)", re.MULTILINE)
# Above what any release has, below what makes APT go back to an older version by itself.
PRIORITY = 999
COMMAND = "./redoubt play lock"


class Broken(Exception):
    """The file cannot be used; the text is for the operator."""


@dataclass(frozen=True)
class PackageLock:
    """A host's packages.json.

    `packages` is {name: {version, architecture, sha256}}, which is all that may be installed when `strict`;
    `sources` is the path of the only source file that the package tool shall read, or empty; with `downgrade` a host
    may go back to an older version.
    """

    platform: str
    digest: str
    sources: str
    packages: Mapping[str, Mapping[str, str]]
    strict: bool = True
    downgrade: bool = False

    @property
    def apt(self) -> bool:
        """Whether the host's packages are APT's."""
        try:
            return bool(parse(self.platform).apt)
        except UnknownPlatform:
            return True

    @property
    def file(self) -> str:
        """Where an operator finds the packages of this platform."""
        return f"lock/platforms/{self.platform}.yml"

    def options(self, preferences: str = PREFERENCES) -> list[str]:
        """Options with which APT heeds the lock alone when strict, and reads its one source where there is one."""
        found: list[str] = []
        if self.strict:
            found += [f"-o=Dir::Etc::preferences={preferences}", "-o=Dir::Etc::preferencesparts=/dev/null"]
        if self.sources:
            # The lists of the host's other sources stay for whoever uses them.
            found += [f"-o=Dir::Etc::sourcelist={self.sources}", "-o=Dir::Etc::sourceparts=/dev/null"]
            found += ["-o=APT::Get::List-Cleanup=false"]
        return found

    def preferences(self, strict: bool = True) -> str:
        """APT's preferences: each package in its version and, when strict, no other package at all."""
        texts = ["Package: *\nPin: release *\nPin-Priority: -1\n"] if strict else []
        for name, row in sorted(self.packages.items()):
            texts.append(f"Package: {name}\nPin: version {row['version']}\nPin-Priority: {PRIORITY}\n")
        return "\n".join(texts)

    def wanted(self, packages: Sequence[str], fits: Callable[[str, dict[str, str]], bool]) -> tuple[list[str], str]:
        """`packages` as NAME=VERSION of the lock, and why some cannot be had, or an empty text.

        `fits(wanted, versions)` says whether a version is the one that was asked for.
        """
        versions = {name: row["version"] for name, row in self.packages.items()}
        # Wishes of RPM's versions are written without the epoch.
        bare = versions if self.apt else {name: version.rpartition(":")[2] for name, version in versions.items()}
        lacking = [item for item in packages if _name(item) not in versions]
        other = [
            f"{item} (locked: {versions[_name(item)]})"
            for item in packages
            if _name(item) in versions and not fits(item, versions) and not fits(item, bare)
        ]
        if lacking or other:
            return [], self.refusal(lacking, other)
        return [f"{_name(item)}={versions[_name(item)]}" for item in packages], ""

    def strangers(self, rehearsal: str) -> str:
        """Why a transaction that APT rehearsed is not the lock's, or an empty text."""
        return self.outside((name.partition(":")[0], version) for name, version in COMING.findall(rehearsal))

    def outside(self, transaction: Iterable[tuple[str, str]]) -> str:
        """Why a transaction of (name, version) is not the lock's, or an empty text."""
        coming = [*transaction]
        lacking = [f"{name}={version}" for name, version in coming if name not in self.packages]
        other = [
            f"{name}={version} (locked: {self.packages[name]['version']})"
            for name, version in coming
            if name in self.packages and self.packages[name]["version"] != version
        ]
        return self.refusal(lacking, other) if lacking or other else ""

    def coming(self, rehearsal: str) -> list[str]:
        """NAME=VERSION of all that a rehearsed transaction installs."""
        return [f"{name.partition(':')[0]}={version}" for name, version in COMING.findall(rehearsal)]

    def forged(self, shown: str) -> str:
        """Why the index does not describe the locked bytes, from `apt-cache show` of the transaction; or empty."""
        rows = map(fields, split(shown))
        return self.other_bytes((row.get("package", ""), row.get("version", ""), row.get("sha256", "")) for row in rows)

    def other_bytes(self, listed: Iterable[tuple[str, str, str]]) -> str:
        """Why a package source has not the locked bytes, from the (name, version, sha256) that it lists; or empty."""
        wrong = []
        for name, version, sha256 in listed:
            row = self.packages.get(name)
            if row and row["version"] == version and sha256.lower() != row["sha256"]:
                wrong.append(
                    f"{name} {version} has the sum {(sha256 or 'none')[:16]}… there and"
                    f" {row['sha256'][:16]}… in the lock"
                )
        if not wrong:
            return ""
        return (
            f"the package source does not have the bytes of the lock ({self.file}): {'; '.join(sorted(set(wrong)))}."
            " No package was changed. Somebody built or changed a package under the same version: use the depot"
            f" (redoubt_sources), or look at it and lock again with '{COMMAND}'"
        )

    def refusal(self, lacking: Iterable[str], other: Iterable[str]) -> str:
        """The refusal of packages that the lock lacks, or has in another version."""
        parts = []
        if [*lacking]:
            parts.append(f"not in the lock: {', '.join(sorted(set(lacking)))}")
        if [*other]:
            parts.append(f"in another version in the lock: {', '.join(sorted(set(other)))}")
        return (
            f"{'; '.join(parts)}. Hosts of {self.platform} install only what {self.file} lists (redoubt_lock_mode is"
            f" strict). No package was changed. Fix: run '{COMMAND}' where there is a network, and bring the new lock"
            " here; or set redoubt_lock_mode: open"
        )

    def newer(self, packages: Sequence[str]) -> str:
        """The refusal of packages that are installed in a newer version than the lock's: texts 'NAME VERSION'."""
        listed = ", ".join(
            f"{item} (locked: {self.packages[item.partition(' ')[0]]['version']})" for item in sorted(packages)
        )
        return (
            f"newer on this host than in the lock: {listed}. Hosts of {self.platform} have what {self.file} lists"
            f" (redoubt_lock_mode is strict). No package was changed. Fix: lock again with '{COMMAND}', or bring the"
            " older version onto this host yourself, in a maintenance window"
        )


def _name(wanted: str) -> str:
    return wanted.partition("=")[0]


def read(path: Optional[str] = None) -> Optional[PackageLock]:
    """The host's lock, or None where it may install anything from anywhere. Raises Broken."""
    path = path or PATH
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Broken(f"{path}: {error.strerror}") from error
    fix = "run the playbook 'host' again, which writes it. Nothing was changed"
    try:
        known = json.loads(text)
        mode = known["mode"]
        if mode == "open" and not known["sources"]:
            return None
        packages = {
            str(name): {key: str(row[key]) for key in ("version", "architecture", "sha256")}
            for name, row in known["packages"].items()
        }
        lock = PackageLock(
            str(known["platform"]),
            str(known["lock_digest"]),
            str(known["sources"]),
            packages,
            mode == "strict",
            known.get("downgrade") is True,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Broken(f"{path} is not what Redoubt writes ({type(error).__name__}: {error}): {fix}") from error
    if mode not in ("strict", "open"):
        raise Broken(f"{path}: mode is {mode!r}, neither strict nor open: {fix}")
    return lock
