"""NVIDIA's driver branches and packages as a table; see planner/data/nvidia_driver.yml for the sources."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_VERSION = re.compile(r"(\d{3})\.(\d+)(?:\.(\d+))?")
_ENTERPRISE = ("AlmaLinux", "RedHat", "Rocky")


@dataclass(frozen=True)
class System:
    """What matters of an operating system; family: Debian, Ubuntu or EL; release: 13, 24.04, 9."""

    family: str
    release: str
    architecture: str
    kernel: str

    @property
    def apt(self) -> bool:
        """Whether packages come by APT; else by DNF."""
        return self.family != "EL"

    @property
    def repository(self) -> str:
        """NVIDIA's name for it, as in ubuntu2404."""
        stem = {"Debian": "debian", "Ubuntu": "ubuntu", "EL": "rhel"}[self.family]
        return stem + self.release.replace(".", "")

    @property
    def folder(self) -> str:
        """The folder of its repository below NVIDIA's root."""
        return f"{self.repository}/{'sbsa' if self.architecture == 'aarch64' else 'x86_64'}"


def system(facts: Mapping[str, Any]) -> System:
    """Return the system that Ansible's facts (distribution, distribution_version, architecture, kernel) describe."""
    name, version = str(facts["distribution"]), str(facts["distribution_version"])
    release = version if name == "Ubuntu" else version.partition(".")[0]
    family = "EL" if name in _ENTERPRISE else name
    return System(family, release, str(facts["architecture"]), str(facts["kernel"]))


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, by which it sorts."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def branch_of(version: str) -> int | None:
    """Return the branch of a whole driver version such as 580.126.20; None for anything else."""
    match = _VERSION.fullmatch(version)
    return int(match[1]) if match else None


@cache
def table() -> Mapping[str, Any]:
    """Return the data file."""
    loaded: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "data/nvidia_driver.yml").read_text(encoding="utf-8")
    )
    return loaded


def end_of_life(branch: int) -> date | None:
    """Return the last day of a branch's support; None for one that the table does not know."""
    found = table()["branches"].get(str(branch))
    return found["ends"] if found else None


def supported_branches(today: date) -> list[str]:
    """Return the branches that are still supported, for a message."""
    return [f"{name} (until {row['ends']:%Y-%m})" for name, row in table()["branches"].items() if row["ends"] >= today]


def packages(source: str, this: System, branch: int, module: str) -> tuple[list[str], list[str], list[str]] | None:
    """Return the names of packages of the driver's version, of those that must not be there, and of those with another.

    None where the source has none.
    """
    rows = table()["packages"][source].get(this.family)
    if rows is None:
        return None
    row = _row(rows, branch)
    words = {"branch": str(branch)}
    other = "proprietary" if module == "open" else "open"
    wanted = _filled([*row["all"], *row[module]], words)
    foreign = [name for name in _filled([*row[other], *row["foreign"]], words) if name not in wanted]
    return wanted, foreign, _filled(row.get("loose", []), words)


def file_prefix(source: str, this: System, module: str) -> str:
    """Return what stands before `uvm` in the name of a module's file, by which options are found."""
    names = table()["module_files"].get(this.family) if source == "distribution" else None
    return str(names[module]) if names else "nvidia"


def signed_module(source: str, this: System, branch: int, module: str) -> str | None:
    """Return the package with the module as the distribution signed it; None where it is built on the host."""
    names = table()["signed_modules"].get(this.family) if source == "distribution" else None
    flavour = this.kernel.rpartition("-")[2]
    return str(names[module]).format(branch=branch, flavour=flavour) if names else None


def fabric(source: str, this: System, branch: int) -> Mapping[str, str]:
    """Return names of the fabric's packages by what they are; empty where the source has none."""
    if source == "distribution" and this.family != "Ubuntu":
        return {}
    row = _row(table()["fabric"][source], branch)
    return {key: str(name).format(branch=branch) for key, name in row.items() if key != "from"}


def headers(this: System) -> list[str]:
    """Return the packages that a module is built with."""
    return _filled(table()["headers"][this.family], {"kernel": this.kernel})


def repository(this: System) -> Mapping[str, str] | None:
    """Return NVIDIA's {key, fingerprint} for a system, empty where none was verified; None where there is none."""
    found: Mapping[str, str] | None = table()["repositories"].get(this.repository)
    return found


def _row(rows: Sequence[Mapping[str, Any]], branch: int) -> Mapping[str, Any]:
    return [row for row in rows if row["from"] <= branch][-1]


def _filled(names: Sequence[str], words: Mapping[str, str]) -> list[str]:
    return [name.format(**words) for name in names]
