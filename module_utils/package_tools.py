# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The package tools of a host: dpkg with APT, or rpm with DNF. Standard library only, Python 3.9+.

A package is wanted as NAME or NAME=VERSION, with both tools; a VERSION that ends in * stands for all that begin so.
"""

from __future__ import annotations

import os
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Optional

from ansible.module_utils import package_dnf
from ansible.module_utils.config_files import write_atomically
from ansible.module_utils.package_dnf import DNF, QUERY_RPM, locked_names, parse_rpm, parse_version_locks, without_epoch
from ansible.module_utils.package_faults import broken_before, impossible, pushed_out, unfetched, unfinished, ungiven
from ansible.module_utils.package_lock import PINS_ONLY, PREFERENCES, PackageLock

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
QUERY_DPKG = ["dpkg-query", "-W", "-f=${Package}\t${Status}\t${Version}\n"]
# Characters of a failed installation's words that an operator gets: the reason, and what other packages said after it.
SAID = 2500


class Refused(Exception):
    """The packages cannot be had; the text is for the operator."""


def split(wanted: str) -> tuple[str, str]:
    """(name, version) of NAME=VERSION; the version is empty where none is given."""
    name, _, version = wanted.partition("=")
    return name, version


def dpkg_rows(output: str) -> list[tuple[str, str, str]]:
    """(name, status, version) of each line; what dpkg only knows has no version, and as the last line no tab either."""
    rows = ((*line.split("\t"), "") for line in output.splitlines())
    return [(row[0], row[1], row[2]) for row in rows]


def parse_dpkg(output: str) -> dict[str, str]:
    """Versions of the installed packages in the output of dpkg-query with QUERY_DPKG's format."""
    versions = {}
    for name, status, version in dpkg_rows(output):
        # "hold ok installed" counts too; "deinstall ok config-files" does not.
        if status.split()[-1] == "installed":
            versions[name] = version
    return versions


def parse_dpkg_holds(output: str) -> set[str]:
    """Names of the packages that the same output says are held."""
    return {name for name, status, _ in dpkg_rows(output) if status.split()[0] == "hold"}


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


class Host:
    """The package tools of this host; with a lock they install what it lists and nothing else."""

    def __init__(self, timeout: int, lock: Optional[PackageLock] = None) -> None:
        self.timeout = timeout
        self.lock = lock if lock and lock.strict else None
        self.sources = lock.sources if lock else ""
        self.platform = lock.platform if lock else ""
        self.only: list[str] = []
        if os.path.exists("/usr/bin/dpkg-query"):
            self.apt = True
            self.only = lock.options() if lock else []
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
        found = parse_rpm(output)
        if not self.lock:  # epochs are the lock's; nobody else writes them
            found = {name: without_epoch(version) for name, version in found.items()}
        return found, parse_version_locks(self._locks(), names)

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
        if self.sources and not os.path.exists(self.sources):
            raise Refused(f"{self.sources}, the host's package source, is not there: run the playbook 'host' again")
        if not self.apt:
            self.only = self._only_repository()
            return ""
        self._pin()
        refreshed, said = self._run([*APT, *self.only, "update"])
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
        return parse_madison(self._run(["apt-cache", *self.only, "madison", *names], merge=False)[1])

    def install(self, packages: list[str], stale: str, ours: list[str], *, older: bool, held: bool) -> None:
        """Install in one transaction; `older`, `held`: to older versions too, and what is held.

        `stale`: why the index is not fresh; `ours`: names and globs of what may be removed for it. Raises Refused: with
        the package tool's own words, or where other packages would have to go.
        """
        if self.apt:
            allowed = ["--allow-downgrades"] * older + ["--allow-change-held-packages"] * held
            self._rehearse([*APT, *self.only, *allowed, "install", *packages], packages, ours)
            command = [*APT, *self.only, *allowed, "install", *packages]
        else:
            specs = ["-".join(filter(None, split(wanted))) for wanted in packages]
            if self.lock:
                specs, problem = package_dnf.rehearsed(self.lock, packages, self.timeout)
                if problem:
                    raise Refused(f"cannot install {', '.join(packages)}: {problem}.")
            command = [*DNF, *self.only, "install", *specs]
        status, output = self._run(command)
        if status:
            # A failing refresh is no failure yet: the package may be in an index that is already here.
            hint = f" The index could not be refreshed before: {stale}" if stale else ""
            fix = "look at the package sources of this host and its way to them."
            if "dpkg returned an error code" in output:
                # As when DKMS cannot build a module; the words that say so come before those of other packages.
                fix = "a package's own script failed: mend what it names, then run this again."
            elif self.sources:
                locked = self.lock.packages if self.lock else {}
                told = (
                    unfetched(output, self.sources, self.platform)
                    if self.apt
                    else ungiven(output, locked, self.sources, self.platform)
                )
                fix = told or fix
            raise Refused(f"cannot install {', '.join(packages)}: {output[-SAID:]}{hint} - {fix}")

    def _rehearse(self, command: list[str], packages: list[str], ours: list[str]) -> None:
        """Refuse what would fail or take others' packages away, before anything is fetched."""
        status, output = self._run([*command, "--simulate"])
        problem = self._outside(command, status, output) or (
            impossible(output, self.holds(["*"])) if status else pushed_out(output, ours)
        )
        if problem:
            raise Refused(f"cannot install {', '.join(packages)}: {problem}.")

    def _outside(self, command: list[str], status: int, output: str) -> str:
        """Why a rehearsed transaction is not what the lock lists, or an empty text."""
        if self.lock is None:
            return ""
        if status:  # what would APT take where it may take anything?
            options = self.lock.options(PINS_ONLY)
            free = [*APT, *options, *command[len(APT) + len(self.only) :], "--simulate"]
            return str(self.lock.strangers(self._run(free)[1]))
        coming = self.lock.coming(output)
        shown = self._run(["apt-cache", *self.only, "show", *coming], merge=False)[1] if coming else ""
        return str(self.lock.strangers(output) or self.lock.forged(shown))

    def _pin(self) -> None:
        """Write APT's preferences of the lock."""
        if self.lock:
            Path(PREFERENCES).parent.mkdir(parents=True, exist_ok=True)
            for path, strict in ((PREFERENCES, True), (PINS_ONLY, False)):
                write_atomically(path, self.lock.preferences(strict).encode(), 0o644, 0, 0)

    def _only_repository(self) -> list[str]:
        """DNF's options for the repository that has the locked packages and no others. Raises Refused."""
        if self.sources:
            return list(package_dnf.options(self.sources))
        if not self.lock:
            return []
        raise Refused(
            "redoubt_lock_mode is strict, and DNF cannot be kept to the lock's versions among the packages of other"
            " repositories. Set redoubt_sources.packages: depot, or redoubt_lock_mode: open. Nothing was changed."
        )

    def newer(self, pairs: list[tuple[str, str, str]]) -> list[str]:
        """'NAME VERSION' of those (name, installed version, locked version) that are installed in a newer version."""
        if not self.apt:
            return [f"{name} {now}" for name, now, locked in pairs if package_dnf.newer(now, locked)]
        compare = ["dpkg", "--compare-versions"]
        return [f"{name} {now}" for name, now, locked in pairs if not self._run([*compare, now, "gt", locked])[0]]

    def hold(self, names: list[str], held: bool) -> None:
        """Hold or release packages. Raises Refused."""
        if self.apt:
            command = ["apt-mark", "hold" if held else "unhold", *names]
        else:
            only = self._only_repository()
            command = ["dnf", "-q", *only, "versionlock", "add" if held else "delete", *names]
        status, output = self._run(command)
        if status:
            plugin = "" if self.apt else " - DNF needs its plugin for that: python3-dnf-plugin-versionlock."
            raise Refused(f"cannot {'hold' if held else 'release'} {', '.join(names)}: {output[-600:]}{plugin}")

    def enable_stream(self, wanted: str) -> None:
        """Enable MODULE:STREAM of DNF in place of another stream. Raises Refused."""
        for verb, name in (("reset", wanted.partition(":")[0]), ("enable", wanted)):
            status, output = self._run([*DNF, "-q", "module", verb, name])
            if status:
                raise Refused(f"'dnf module {verb} {name}' ended with {status}: {output[-600:]}")

    @staticmethod
    def _locks() -> str:
        try:
            return Path(package_dnf.VERSION_LOCKS).read_text(encoding="utf-8")
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
