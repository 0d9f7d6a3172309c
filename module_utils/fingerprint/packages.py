# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The packages of this host with their versions, and those that its lock allows. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ansible.module_utils.programs import ask

from .document import Gathered, Row, Section

LOCKED = "/etc/redoubt/packages.json"
SECONDS = 60
DPKG = ["dpkg-query", "--show", "--showformat=${Package}\t${Architecture}\t${Version}\t${db:Status-Abbrev}\n"]
RPM = ["rpm", "--query", "--all", "--queryformat=%{NAME}\t%{ARCH}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\tii\n"]
HELD = "h"
INSTALLED = "i"


class NoPackages(Exception):
    """The package database gives no answer; the text is for the operator."""


def parse(output: str) -> Section:
    """The packages in the output of DPKG or RPM; several versions of one package stand in one row.

    Packages of which only the configuration is left do not count; half-installed ones do, with their state.
    """
    rows: Section = {}
    for line in output.splitlines():
        name, architecture, version, state = [*line.split("\t"), "", "", ""][:4]
        version = version[2:] if version.startswith("0:") else version  # an epoch of 0 is none, as in the lock
        wish, status = state[:1], state[1:2].strip()
        if not name or name == "gpg-pubkey" or status in ("", "n", "c"):
            continue
        before = rows.get(name)
        if before is None:
            rows[name] = {"version": version, "architecture": architecture}
        else:
            before["version"] = _joined(before["version"], version)
            before["architecture"] = _joined(before["architecture"], architecture)
        if wish == HELD:
            rows[name]["held"] = "yes"
        if status != INSTALLED:
            rows[name]["state"] = f"not wholly installed ({state.strip()})"
    return rows


def _joined(one: str, other: str) -> str:
    return " ".join(sorted({*one.split(), other}))


def against_lock(found: Section, locked: Mapping[str, Any]) -> Dict[str, Optional[Row]]:
    """What the lock says of the installed packages: the row that it allows, or None for one that it does not know.

    `locked` maps names to mappings with version and architecture.
    """
    rows: Dict[str, Optional[Row]] = {}
    for name in found:
        allowed = locked.get(name)
        rows[name] = allowed and {key: str(allowed[key]) for key in ("version", "architecture") if allowed.get(key)}
    return rows


def gather(gathered: Gathered, locked: Path = Path(LOCKED)) -> None:
    """Fill `packages`, and what the lock in force says of those that it lists. Raises NoPackages."""
    command = DPKG if os.path.exists("/usr/bin/dpkg-query") else RPM
    status, output, errors = ask(command, SECONDS)
    if status:
        raise NoPackages(f"'{command[0]}' gives no list of packages (exit {status}): {errors}")
    gathered.sections["packages"] = parse(output)
    try:
        document = json.loads(locked.read_text())
    except (OSError, ValueError):
        return
    if isinstance(document, dict) and document.get("mode") == "strict" and isinstance(document.get("packages"), dict):
        # What the operating system brought is in no lock: only an earlier fingerprint tells it from an addition.
        rows = against_lock(gathered.sections["packages"], document["packages"])
        gathered.recorded["packages"] = {name: row for name, row in rows.items() if row is not None}
