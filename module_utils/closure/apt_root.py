# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""APT in a root of its own: its sources, keys, lists and package database, never this machine's. The thin edge.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure.stanzas import Available, available

FOLDERS = (
    "etc/apt/apt.conf.d",
    "etc/apt/keyrings",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
    "var/lib/dpkg",
)
# This machine's way to its sources: proxies, certificates, logins, clock checks.
WAY = ("Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::Check-", "Acquire::Retries")
MACHINE_KEYS = Path("/etc/apt/trusted.gpg.d")
MACHINE_LOGINS = ("/etc/apt/auth.conf", "/etc/apt/auth.conf.d")
INSTALLED = re.compile(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+) .*?\[([^\]]+)\]\)", re.MULTILINE)
TARGET = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ARCHITECTURE)|$(FILENAME)|$(ORIGIN)|$(SUITE)"
SAID = 3000  # characters of APT's own words in a refusal


@dataclass(frozen=True)
class Target:
    """A package list that APT fetched: where from, and the file it lies in."""

    uri: str
    suite: str
    component: str
    path: Path


def way_to_sources(dump: str) -> list[str]:
    """Those lines of `apt-config dump` that say how this machine reaches its package sources."""
    return [line for line in dump.splitlines() if line.startswith(WAY) and not line.endswith('"";')]


def settings(root: Path, architecture: str, way: Sequence[str], sandboxed: bool) -> str:
    """The text of the root's APT configuration."""
    lines = [
        f'Dir "{root}/";',
        f'Dir::State::status "{root}/var/lib/dpkg/status";',
        f'APT::Architecture "{architecture}";',
        f'APT::Architectures {{ "{architecture}"; }};',
        'APT::Install-Recommends "false";',
        'APT::Get::Always-Include-Phased-Updates "true";',
        'Acquire::AllowInsecureRepositories "false";',
        'Acquire::GzipIndexes "false";',
        'Acquire::Languages "none";',
    ]
    if not sandboxed:  # APT's own user cannot come here
        lines.append('APT::Sandbox::User "root";')
    return "\n".join([*lines, *way, ""])


def reachable(folder: Path) -> bool:
    """Whether every user may walk down to this folder."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


class AptRoot:
    """A root below `folder` for one architecture. Raises Refusal where this machine has no APT, and OSError."""

    def __init__(self, folder: Path, architecture: str, timeout: int) -> None:
        if not shutil.which("apt-get"):
            raise Refusal(
                "APT is not on this machine, so packages of Debian and Ubuntu cannot be resolved here. Run this on a"
                " host that has it (delegate_to), or install the package apt"
            )
        self.folder, self.timeout = folder.resolve(), timeout
        self.configuration = self.folder / "apt.conf"
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        machine = self.run(["apt-config", "dump"], own=False)[1]
        self.configuration.write_text(
            settings(self.folder, architecture, way_to_sources(machine), reachable(self.folder)), encoding="utf-8"
        )
        self.status("")

    def status(self, text: str) -> None:
        """Have this as dpkg's status file: the system that the next questions are asked of."""
        (self.folder / "var/lib/dpkg/status").write_text(text, encoding="utf-8")

    def sources(self, text: str, keys: Mapping[str, str]) -> list[Path]:
        """Write the sources, the keys by file name, and this machine's own keys and logins.

        Returns the paths of the keys. Raises OSError.
        """
        etc = self.folder / "etc/apt"
        (etc / "sources.list.d/lock.sources").write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        for name, armoured in keys.items():
            (etc / "keyrings" / name).write_text(armoured, encoding="utf-8")
        for place in MACHINE_LOGINS:
            if os.path.isfile(place) and os.access(place, os.R_OK):
                shutil.copy(place, etc / "auth.conf")
            elif os.path.isdir(place) and os.access(place, os.R_OK):
                shutil.copytree(place, etc / "auth.conf.d", dirs_exist_ok=True)
        own = sorted(MACHINE_KEYS.glob("*.asc")) + sorted(MACHINE_KEYS.glob("*.gpg"))
        for path in own:
            shutil.copy(path, etc / "trusted.gpg.d")
        return [*own, *(etc / "keyrings" / name for name in keys)]

    def update(self) -> None:
        """Fetch the package lists. Raises Refusal where one cannot be had or its signature is not good."""
        status, said = self.run(["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"])
        if status:
            raise Refusal(f"the package lists cannot be fetched: {said[-SAID:]}")

    def targets(self) -> list[Target]:
        """The package lists that were fetched."""
        wanted = ["apt-get", "indextargets", "--format", TARGET, "Created-By: Packages"]
        found = []
        for line in self.run(wanted)[1].splitlines():
            uri, suite, component, _, path, *_ = line.split("|")
            if os.path.exists(path):
                found.append(Target(uri, suite, component, Path(path)))
        return found

    def signed(self, target: Target) -> bytes:
        """The signed list of lists (InRelease, or the signature beside Release) that covers a target."""
        folder = target.path.parent
        for ending in ("InRelease", "Release.gpg"):
            near = [
                path for path in folder.glob(f"*{ending}") if target.path.name.startswith(path.name[: -len(ending)])
            ]
            if near:
                return max(near, key=lambda path: len(path.name)).read_bytes()
        return b""

    def packages(self) -> Iterator[tuple[Available, bool]]:
        """Every package of every list, with whether every system has it."""
        for target in self.targets():
            yield from available(target.path.read_text(encoding="utf-8"), target.uri)

    def resolve(self, names: Iterable[str]) -> tuple[list[tuple[str, str, str]], str]:
        """(name, version, architecture) of all that installing these brings, and ''; or nothing, and why not."""
        status, said = self.run(["apt-get", "-q", "-s", "install", *sorted(set(names))])
        return ([], said) if status else ([(row[0], row[1], row[2]) for row in INSTALLED.findall(said)], "")

    def run(self, command: Sequence[str], own: bool = True) -> tuple[int, str]:
        """(exit status, both outputs) of a command of APT's, by default with this root's configuration."""
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        environment.pop("APT_CONFIG", None)
        if own:
            environment["APT_CONFIG"] = str(self.configuration)
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refusal(f"'{' '.join(command[:4])} …' did not end within {self.timeout} s") from None
        return done.returncode, done.stdout.decode(errors="replace").strip()
