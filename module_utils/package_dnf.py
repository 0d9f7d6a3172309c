# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What is RPM's and DNF's own of a host's package tools: versions, locks, streams, and transactions under a lock.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Optional

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure.dnf_root import ask
from ansible.module_utils.package_faults import unlisted
from ansible.module_utils.package_lock import PackageLock

# Not -q: with it, no reason is told why a package cannot be downloaded.
DNF = ["dnf", "-y", "--setopt=install_weak_deps=False"]
# A version has its epoch where that is not 0, as in the lock.
QUERY_RPM = ["rpm", "-q", "--qf=%{NAME}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n"]
# Where dnf's versionlock plugin writes: one pattern NAME-EPOCH:VERSION-RELEASE.ARCH a line.
VERSION_LOCKS = "/etc/dnf/plugins/versionlock.list"
# Which stream of a DNF module is enabled: an INI file per module.
MODULES = "/etc/dnf/modules.d"
# The system whose packages count, and which of DNF's folders are elsewhere than usual.
HOST: Mapping[str, Any] = {"root": "/", "folders": {}}
INSTALL = "install"
STEP = re.compile(r"[0-9]+|[a-zA-Z]+|~|\^")


def parse_rpm(output: str) -> dict[str, str]:
    """Versions of the installed packages in the output of rpm -q with QUERY_RPM's format."""
    # An epoch of 0 that somebody wrote is none.
    rows = [line.split("\t") for line in output.splitlines() if line.count("\t") == 1]
    return {name: re.sub("^0:", "", version) for name, version in rows}


def without_epoch(version: str) -> str:
    """VERSION-RELEASE of EPOCH:VERSION-RELEASE."""
    return version.rpartition(":")[2]


def parse_version_locks(text: str, names: list[str]) -> set[str]:
    """Those of `names` that a line of VERSION_LOCKS locks; lines with ! exclude and do not count."""
    return set(locked_names(text)) & set(names)


def locked_names(text: str) -> list[str]:
    """Names that the lines of VERSION_LOCKS lock."""
    return sorted({match[1] for match in re.finditer(r"^\s*([^#!\s].*?)-\d+:", text, re.MULTILINE)})


def stream_enabled(wanted: str) -> bool:
    """Whether MODULE:STREAM of DNF is enabled on this host."""
    name, _, stream = wanted.partition(":")
    parser = configparser.ConfigParser()
    parser.read(f"{MODULES}/{name}.module")
    found = dict(parser[name]) if parser.has_section(name) else {}
    return found.get("stream") == stream and found.get("state") == "enabled"


def newer(one: str, other: str) -> bool:
    """Whether the version `one` is newer than `other`, as RPM orders them: EPOCH:VERSION-RELEASE."""
    for a, b in zip(_parts(one), _parts(other)):
        order = _compare(a, b)
        if order:
            return order > 0
    return False


def _parts(version: str) -> tuple[str, str, str]:
    epoch, _, rest = version.rpartition(":")
    number, _, release = rest.partition("-")
    return epoch or "0", number, release


def _compare(one: str, other: str) -> int:
    """RPM's order of two versions or releases: above, below or 0."""
    for a, b in zip_longest(STEP.findall(one), STEP.findall(other), fillvalue=""):
        if a == b:
            continue
        if "~" in (a, b):  # before everything, also before the end
            return -1 if a == "~" else 1
        if "^" in (a, b):  # behind the end, before everything else
            return 1 if b in ("", "^") and a != "" else -1
        if not a or not b:
            return 1 if a else -1
        if a.isdigit() != b.isdigit():
            return 1 if a.isdigit() else -1
        order = int(a) - int(b) if a.isdigit() else (a > b) - (a < b)
        if order:
            return order
    return 0


def repositories(sources: str) -> list[str]:
    """Names of the repositories in a .repo file; none where it cannot be read."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(sources)
    return parser.sections()


def options(sources: str) -> list[str]:
    """Options with which DNF reads this .repo file, wherever it is, and no other repository."""
    enabled = [f"--enablerepo={name}" for name in repositories(sources)]
    return [f"--setopt=reposdir={os.path.dirname(sources)}", "--disablerepo=*", *enabled]


def rehearsed(
    lock: PackageLock, packages: Sequence[str], timeout: int, host: Mapping[str, Any] = HOST
) -> tuple[list[str], str]:
    """All that installing these (NAME=VERSION of the lock) brings, as NAME-VERSION.ARCHITECTURE, and why not, or ''.

    Only packages of the lock are taken, in its versions, and only where the repository's signed lists have their sums.
    """
    specs = [item.replace("=", "-", 1) for item in packages]
    locked = {name: row["version"] for name, row in lock.packages.items()}
    told = _asked(lock, specs, locked, timeout, host)
    if told["problem"]:
        # What would DNF take where it may take anything?
        free = _asked(lock, specs, None, timeout, host)
        coming = [(row["name"], row["version"]) for row in free["rows"]]
        return [], lock.outside(coming) or unlisted(told["problem"], lock.sources, lock.platform)
    problem = lock.outside((row["name"], row["version"]) for row in told["rows"]) or lock.other_bytes(
        (row["name"], row["version"], row["sum"][1] if row["sum"][0] == "sha256" else "") for row in told["rows"]
    )
    return [f"{row['name']}-{row['version']}.{row['architecture']}" for row in told["rows"]], problem


def _asked(
    lock: PackageLock, specs: Sequence[str], only: Optional[Mapping[str, str]], timeout: int, host: Mapping[str, Any]
) -> Mapping[str, Any]:
    """{rows, problem} of DNF's library about this host."""
    question = {
        **host,
        "system": True,
        "repositories": os.path.dirname(lock.sources),
        "enabled": repositories(lock.sources),
        "machine": "",
        "releasever": "",
        "module_platform": "",
        "streams": [],
        "groups": {},
        "asks": {INSTALL: [*specs]},
        "only": only,
    }
    try:
        answer = ask(question, timeout)
    except Refusal as error:
        return {"rows": [], "problem": str(error)}
    if answer["problem"]:
        return {"rows": [], "problem": answer["problem"]}
    found: Mapping[str, Any] = answer["asks"][INSTALL]
    return found
