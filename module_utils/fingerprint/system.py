# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Units, kernel parameters, accounts, and what belongs to this host alone. Standard library only, Python 3.9+."""

from __future__ import annotations

import glob
import grp
import json
import os
import platform
import pwd
import re
import shlex
import socket
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence

from ansible.module_utils.programs import ask

from .document import Gathered, Row

PROC = "/proc/sys"
KERNEL_RECORD = "/var/lib/redoubt/kernel_parameters.json"
SYSUSERS = "/etc/sysusers.d/*redoubt*"
SHADOW = "/etc/shadow"
# Who is in the engine's group is as good as root.
GROUPS = ("docker", "redoubt")
# Interfaces that come and go with containers.
OS_RELEASE = "/etc/os-release"
# As the kernel says it: as packages do.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
BRIDGES = ("docker", "br-", "veth", "lo")
SECONDS = 30
NO_SHELLS = ("nologin", "false")
PROPERTIES = ("Id", "LoadState", "UnitFileState", "ActiveState", "FragmentPath", "DropInPaths", "NeedDaemonReload")
# A unit that starts or stops is on its way from one to the other.
PASSING = {"activating": "active", "reloading": "active", "deactivating": "inactive"}


def parse_units(output: str) -> List[Dict[str, str]]:
    """The properties of each unit in the output of systemctl show."""
    rows = []
    for block in output.strip().split("\n\n"):
        row = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if row.get("Id"):
            rows.append(row)
    return rows


def unit_row(shown: Dict[str, str], steady: bool) -> Row:
    """What a fingerprint says of a unit; `steady` ones run always, of others it is chance whether they run now."""
    row = {
        "load": shown.get("LoadState", ""),
        "boot": shown.get("UnitFileState", "") or "none",
        "drop_ins": " ".join(sorted(shown.get("DropInPaths", "").split())),
    }
    if shown.get("NeedDaemonReload") == "yes":
        row["stale"] = "changed on disk, not loaded"
    if steady:
        active = shown.get("ActiveState", "")
        row["runs"] = PASSING.get(active, active)
    return row


def gather_units(gathered: Gathered, enabled: Sequence[str], probed: Sequence[str]) -> None:
    """Fill `units` with those that config sets enable or probe and those whose files they wrote."""
    written = set()
    for path in gathered.sections["files"]:
        match = re.match(r"/etc/systemd/system/([^/]+?)(?:\.d/[^/]+)?$", path)
        if match:
            written.add(match[1])
    names = sorted({*enabled, *probed, *written})
    if not names:
        return
    status, output, _ = ask(["systemctl", "show", f"--property={','.join(PROPERTIES)}", *names], SECONDS)
    shown = {row["Id"]: row for row in parse_units(output)} if status == 0 else {}
    for name in names:
        # An alias is shown under its own name.
        gathered.sections["units"][name] = unit_row(shown.get(name, {}), name in probed)
    for name in enabled:
        gathered.recorded["units"][name] = {"load": "loaded", "boot": "enabled"}
    for name in probed:
        row = gathered.recorded["units"].setdefault(name, {"load": "loaded"}) or {}
        row["runs"] = "active"


def gather_kernel(gathered: Gathered, record: Path = Path(KERNEL_RECORD), proc: str = PROC) -> None:
    """Fill `kernel` with the parameters that the module kernel_parameters recorded, as the kernel has them now."""
    try:
        document = json.loads(record.read_text())
        wanted: Dict[str, Any] = document["parameters"]
        drop_in: str = document["path"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    written = dict(line.split(" = ", 1) for line in _lines([drop_in]) if " = " in line)
    for name, value in wanted.items():
        # Dots part the names, a slash inside a name stands for a dot.
        path = os.path.join(proc, *(part.replace("/", ".") for part in name.split(".")))
        try:
            now = " ".join(Path(path).read_text().split())
        except OSError:
            now = "the kernel has no such parameter"
        stated = " ".join(str(value).split())
        gathered.sections["kernel"][name] = {"value": now, "at_boot": " ".join(written.get(name, "").split())}
        gathered.recorded["kernel"][name] = {"value": stated, "at_boot": stated}


def gather_accounts(gathered: Gathered, sysusers: str = SYSUSERS, shadow: str = SHADOW) -> None:
    """Fill `users` with the accounts that our sysusers files make, `groups` with who is in those that matter."""
    passwords = _passwords(shadow)
    for line in _lines(glob.glob(sysusers)):
        words = shlex.split(line)
        if len(words) < 2 or words[0].rstrip("!") != "u":
            continue
        name, home, shell = words[1], _word(words, 4), _word(words, 5)
        gathered.recorded["users"][name] = {
            "home": home or "/",
            "shell": shell or "none",
            "password": "none",
            "root": "no",
        }
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        gathered.sections["users"][name] = {
            "home": entry.pw_dir,
            "shell": "none" if os.path.basename(entry.pw_shell) in NO_SHELLS and not shell else entry.pw_shell,
            "password": "none" if passwords.get(name, "*")[:1] in ("!", "*") else "set",
            "root": "yes" if entry.pw_uid == 0 else "no",
            "groups": " ".join(sorted(group.gr_name for group in grp.getgrall() if name in group.gr_mem)),
        }
    for name in GROUPS:
        try:
            gathered.sections["groups"][name] = {"members": " ".join(sorted(grp.getgrnam(name).gr_mem))}
        except KeyError:
            continue


def _passwords(shadow: str) -> Dict[str, str]:
    """The first character of each account's password field is all that is looked at."""
    rows = (line.split(":") for line in _lines([shadow]))
    return {row[0]: row[1][:1] or "empty" for row in rows if len(row) > 1}


def _lines(paths: Iterable[str]) -> List[str]:
    found: List[str] = []
    for path in sorted(paths):
        try:
            found += Path(path).read_text().splitlines()
        except OSError:
            continue
    return [line for line in found if line.strip() and not line.lstrip().startswith("#")]


def _word(words: Sequence[str], index: int) -> str:
    return words[index] if len(words) > index and words[index] != "-" else ""


def addresses() -> List[str]:
    """The addresses of this host that others may reach it by, those of containers' bridges left out."""
    status, output, _ = ask(["ip", "-oneline", "address", "show", "scope", "global"], SECONDS)
    return parse_addresses(output) if status == 0 else []


def parse_addresses(output: str) -> List[str]:
    """The addresses in the output of ip -oneline address."""
    found = re.findall(r"^\d+: (\S+)\s+inet6? ([0-9a-f.:]+)", output, re.MULTILINE)
    return sorted({address for interface, address in found if not interface.startswith(BRIDGES)})


def names() -> List[str]:
    """The names of this host."""
    return sorted({socket.gethostname(), socket.getfqdn(), os.uname().nodename} - {""})


def platform_name(os_release: str, machine: str) -> str:
    """The platform as locks name it, such as debian-13-amd64."""
    words = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    word, version = (words.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID"))
    version = version if word == "ubuntu" else version.partition(".")[0]
    return f"{word}-{version}-{ARCHITECTURES.get(machine, machine)}" if word and version else ""


def gather_local(gathered: Gathered) -> None:
    """Fill `local.system`."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    gathered.local["system"].update(
        {
            "names": {"value": " ".join(names())},
            "addresses": {"value": " ".join(addresses())},
            "machine": {"value": machine},
            "kernel": {"value": platform.release()},
            "platform": {"value": platform_name("\n".join(_lines([OS_RELEASE])), platform.machine())},
        }
    )
