# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The package tools of a host: dpkg with APT, or rpm with DNF. Standard library only, Python 3.9+.

A package is wanted as NAME or NAME=VERSION, with both tools; a VERSION that ends in * stands for all that begin so.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

from ansible.module_utils.package_faults import broken_before, impossible, pushed_out, unfinished

QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",  # needrestart would restart services that this run does not own
    "LC_ALL": "C.UTF-8",
}
APT = [
    "apt-get",
    "-y",
    "-q",
    "-o=DPkg::Lock::Timeout=300",
    "-o=Dpkg::Options::=--force-confdef",
    "-o=Dpkg::Options::=--force-confold",
    "-o=APT::Install-Recommends=false",
]
DNF = ["dnf", "-y", "-q", "--setopt=install_weak_deps=False"]
QUERY_DPKG = ["dpkg-query", "-W", "-f=${Package}\t${Status}\t${Version}\n"]
QUERY_RPM = ["rpm", "-q", "--qf=%{NAME}\t%{VERSION}-%{RELEASE}\n"]
# Characters of a failed installation's words that an operator gets: the reason, and what other packages said after it.
SAID = 2500
# Where dnf's versionlock plugin writes: one pattern NAME-EPOCH:VERSION-RELEASE.ARCH a line.
VERSION_LOCKS = "/etc/dnf/plugins/versionlock.list"


# Which stream of a DNF module is enabled: an INI file per module.
MODULES = "/etc/dnf/modules.d"


class Refused(Exception):
    """The packages cannot be had; the text is for the operator."""


def split(wanted: str) -> tuple[str, str]:
    """(name, version) of NAME=VERSION; the version is empty where none is given."""
    name, _, version = wanted.partition("=")
    return name, version


def parse_dpkg(output: str) -> dict[str, str]:
    """Versions of the installed packages in the output of dpkg-query with QUERY_DPKG's format."""
    versions = {}
    for line in output.splitlines():
        name, status, version = line.split("\t")
        # "hold ok installed" counts too; "deinstall ok config-files" does not.
        if status.split()[-1] == "installed":
            versions[name] = version
    return versions


def parse_dpkg_holds(output: str) -> set[str]:
    """Names of the packages that the same output says are held."""
    rows = (line.split("\t") for line in output.splitlines())
    return {name for name, status, _ in rows if status.split()[0] == "hold"}


def parse_rpm(output: str) -> dict[str, str]:
    """Versions of the installed packages in the output of rpm -q with QUERY_RPM's format."""
    return dict(line.split("\t") for line in output.splitlines() if line.count("\t") == 1)


def parse_version_locks(text: str, names: list[str]) -> set[str]:
    """Those of `names` that a line of VERSION_LOCKS locks; lines with ! exclude and do not count."""
    return set(locked_names(text)) & set(names)


def locked_names(text: str) -> list[str]:
    """Names that the lines of VERSION_LOCKS lock."""
    return sorted({match[1] for match in re.finditer(r"^\s*([^#!\s].*?)-\d+:", text, re.MULTILINE)})


def parse_madison(output: str) -> dict[str, list[str]]:
    """Versions by name, newest first, in the output of apt-cache madison: lines `name | version | source`."""
    versions: dict[str, list[str]] = {}
    for line in output.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and fields[1] not in versions.setdefault(fields[0], []):
            versions[fields[0]].append(fields[1])
    return versions


def fits(wanted: str, versions: dict[str, str]) -> bool:
    """Whether the package `wanted` is among `versions` (name to installed version), in its version."""
    name, version = split(wanted)
    if name not in versions:
        return False
    if version.endswith("*"):
        return versions[name].startswith(version[:-1])
    return version in ("", versions[name])


def missing(packages: list[str], versions: dict[str, str]) -> list[str]:
    """Those of `packages` that are not there in their version."""
    return [wanted for wanted in packages if not fits(wanted, versions)]


def stream_enabled(wanted: str) -> bool:
    """Whether MODULE:STREAM of DNF is enabled on this host."""
    name, _, stream = wanted.partition(":")
    parser = configparser.ConfigParser()
    parser.read(f"{MODULES}/{name}.module")
    found = dict(parser[name]) if parser.has_section(name) else {}
    return found.get("stream") == stream and found.get("state") == "enabled"


class Host:
    """The package tools of this host."""

    def __init__(self, timeout: int) -> None:
        self.timeout = timeout
        if os.path.exists("/usr/bin/dpkg-query"):
            self.apt = True
        elif os.path.exists("/usr/bin/rpm"):
            self.apt = False
        else:
            raise Refused("this host has neither dpkg nor rpm, so packages cannot be installed on it")

    def state(self, names: list[str]) -> tuple[dict[str, str], set[str]]:
        """Installed versions of those of `names` that are installed, and which of `names` are held."""
        if not names:
            return {}, set()
        query = QUERY_DPKG if self.apt else QUERY_RPM
        _, output = self._run([*query, *names], merge=False)
        if self.apt:
            return parse_dpkg(output), parse_dpkg_holds(output)
        return parse_rpm(output), parse_version_locks(self._locks(), names)

    def holds(self, patterns: list[str]) -> list[str]:
        """All held packages whose name fits one of these globs."""
        if not patterns:
            return []
        held = self._run(["apt-mark", "showhold"])[1].split() if self.apt else locked_names(self._locks())
        # apt-mark writes the architecture of some: libcuda1:amd64.
        return [name for name in held if any(fnmatchcase(name.partition(":")[0], one) for one in patterns)]

    def refresh(self, ours: list[str]) -> str:
        """Refresh APT's index (DNF does so itself) and finish what was cut short; returns why the former failed, or ''.

        Raises Refused where packages other than `ours` (names and globs) are broken.
        """
        if not self.apt:
            return ""
        refreshed, said = self._run([*APT, "update"])
        # After a power cut in an installation apt refuses to go on before this; else it has nothing to do.
        status, configured = self._run(["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"])
        problem = broken_before(self._run(["apt-get", "check"])[1]) if status else ""
        problem = problem or (unfinished(configured, ours) if status else "")
        if problem:
            raise Refused(problem)
        return said[-600:] if refreshed else ""

    def offered(self, names: list[str]) -> dict[str, list[str]]:
        """Versions of these that APT's sources have, newest first. Raises Refused where the tool is DNF."""
        if not self.apt:
            raise Refused("only APT is asked what its sources have")
        return parse_madison(self._run(["apt-cache", "madison", *names], merge=False)[1])

    def install(self, packages: list[str], stale: str, ours: list[str], *, older: bool, held: bool) -> None:
        """Install in one transaction; `older`, `held`: to older versions too, and what is held.

        `stale`: why the index is not fresh; `ours`: names and globs of what may be removed for it. Raises Refused: with
        the package tool's own words, or where other packages would have to go.
        """
        if self.apt:
            allowed = ["--allow-downgrades"] * older + ["--allow-change-held-packages"] * held
            command = [*APT, *allowed, "install", *packages]
            self._rehearse(command, packages, ours)
        else:
            command = [*DNF, "install", *("-".join(filter(None, split(wanted))) for wanted in packages)]
        status, output = self._run(command)
        if status:
            # A failing refresh is no failure yet: the package may be in an index that is already here.
            hint = f" The index could not be refreshed before: {stale}" if stale else ""
            fix = "look at the package sources of this host and its way to them."
            if "dpkg returned an error code" in output:
                # As when DKMS cannot build a module; the words that say so come before those of other packages.
                fix = "a package's own script failed: mend what it names, then run this again."
            raise Refused(f"cannot install {', '.join(packages)}: {output[-SAID:]}{hint} - {fix}")

    def _rehearse(self, command: list[str], packages: list[str], ours: list[str]) -> None:
        """Refuse what would fail or take others' packages away, before anything is fetched."""
        status, output = self._run([*command, "--simulate"])
        problem = impossible(output, self.holds(["*"])) if status else pushed_out(output, ours)
        if problem:
            raise Refused(f"cannot install {', '.join(packages)}: {problem}.")

    def hold(self, names: list[str], held: bool) -> None:
        """Hold or release packages. Raises Refused."""
        if self.apt:
            command = ["apt-mark", "hold" if held else "unhold", *names]
        else:
            command = ["dnf", "-q", "versionlock", "add" if held else "delete", *names]
        status, output = self._run(command)
        if status:
            plugin = "" if self.apt else " - DNF needs its plugin for that: python3-dnf-plugin-versionlock."
            raise Refused(f"cannot {'hold' if held else 'release'} {', '.join(names)}: {output[-600:]}{plugin}")

    def enable_stream(self, wanted: str) -> None:
        """Enable MODULE:STREAM of DNF in place of another stream. Raises Refused."""
        for verb, name in (("reset", wanted.partition(":")[0]), ("enable", wanted)):
            status, output = self._run([*DNF, "module", verb, name])
            if status:
                raise Refused(f"'dnf module {verb} {name}' ended with {status}: {output[-600:]}")

    @staticmethod
    def _locks() -> str:
        try:
            return Path(VERSION_LOCKS).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _run(self, command: list[str], merge: bool = True) -> tuple[int, str]:
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                timeout=self.timeout,
                env={**os.environ, **QUIET},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"'{' '.join(command)}' did not end within {self.timeout} s") from None
        return done.returncode, done.stdout.decode(errors="replace").strip()
