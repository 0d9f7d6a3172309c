# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Platforms by name (debian-13-amd64), and the facts that a host of one has. Pure, Python 3.9+."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class UnknownPlatform(ValueError):
    """A name that stands for no platform; the text is for the operator."""


# Code names, which APT's sources say and version numbers do not.
CODE_NAMES = {
    "debian-12": "bookworm",
    "debian-13": "trixie",
    "ubuntu-22.04": "jammy",
    "ubuntu-24.04": "noble",
    "ubuntu-26.04": "resolute",
}
# First word of a platform's name: Ansible's distribution and family.
DISTRIBUTIONS = {
    "almalinux": ("AlmaLinux", "RedHat"),
    "debian": ("Debian", "Debian"),
    "rhel": ("RedHat", "RedHat"),
    "rocky": ("Rocky", "RedHat"),
    "ubuntu": ("Ubuntu", "Debian"),
}
# Architecture as dpkg and as the kernel say it.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Platform:
    """One platform: its name's parts, and what follows from them."""

    name: str
    distribution: str
    family: str
    version: str
    architecture: str
    code_name: str

    @property
    def apt(self) -> bool:
        """Whether its packages are APT's."""
        return self.family == "Debian"

    @property
    def word(self) -> str:
        """The first word of its name, which is also ID in os-release."""
        return self.name.partition("-")[0]


def parse(name: str) -> Platform:
    """The platform of this name. Raises UnknownPlatform."""
    word, _, rest = name.partition("-")
    version, _, architecture = rest.rpartition("-")
    if word not in DISTRIBUTIONS or not version or architecture not in MACHINES:
        raise UnknownPlatform(
            f"{name!r} is no platform that Redoubt knows. Write DISTRIBUTION-VERSION-ARCHITECTURE, with one of"
            f" {', '.join(sorted(DISTRIBUTIONS))}, its version, and {' or '.join(MACHINES)}: debian-13-amd64,"
            " ubuntu-24.04-arm64, rocky-9-amd64"
        )
    distribution, family = DISTRIBUTIONS[word]
    code_name = CODE_NAMES.get(f"{word}-{version}", "")
    if family == "Debian" and not code_name:
        known = ", ".join(sorted(key for key in CODE_NAMES if key.startswith(f"{word}-")))
        raise UnknownPlatform(f"platform {name!r}: there is no {distribution} {version} here; known are {known}")
    return Platform(name, distribution, family, version, architecture, code_name)


def facts(platform: Platform) -> dict[str, Any]:
    """Ansible's facts of a host of this platform, as far as roles read them to choose packages."""
    return {
        "architecture": MACHINES[platform.architecture],
        "distribution": platform.distribution,
        "distribution_major_version": platform.version.partition(".")[0],
        "distribution_release": platform.code_name,
        "distribution_version": platform.version,
        "os_family": platform.family,
        "pkg_mgr": "apt" if platform.apt else "dnf",
    }


def name_of(known: Mapping[str, Any]) -> str:
    """The name of the platform that a host with these facts has; empty where it is none that Redoubt knows.

    Debian and EL count by their major version, Ubuntu by its release (24.04).
    """
    words = {distribution: word for word, (distribution, _) in DISTRIBUTIONS.items()}
    architectures = {machine: architecture for architecture, machine in MACHINES.items()}
    word = words.get(known.get("distribution", ""), "")
    architecture = architectures.get(known.get("architecture", ""), "")
    key = "distribution_version" if word == "ubuntu" else "distribution_major_version"
    version = str(known.get(key) or "")
    return f"{word}-{version}-{architecture}" if word and version and architecture else ""
