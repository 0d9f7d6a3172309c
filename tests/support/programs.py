"""Real programs for the tests on this machine, brought from the distribution where they are not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabError
from lab.report import PlainReport
from lab.tools import file_lock, find, require, run

UNPACKED = paths.CACHE / "unpacked"


def nginx() -> str:
    """Nginx. Taken out of its package, not installed: the package would start a server on port 80 of this machine."""
    return find("nginx") or _unpacked("nginx", "usr/sbin/nginx")


def client(program: str, package: str) -> str:
    """A program that may be installed. Skips the test where it is not there and cannot be."""
    try:
        require({program: package}, PlainReport())
    except LabError as error:
        pytest.skip(str(error))
    return str(find(program))


def rpm_tools() -> None:
    """DNF and what makes repositories for it. Skips the test where they are not there and cannot be."""
    for program, package in (("dnf", "dnf"), ("rpmbuild", "rpm"), ("createrepo_c", "createrepo-c"), ("gpg", "gpg")):
        client(program, package)


def _unpacked(package: str, program: str) -> str:
    target: Path = UNPACKED / package / program
    with file_lock(f"unpack-{package}"):
        if not target.is_file():
            folder = UNPACKED / package
            folder.mkdir(parents=True, exist_ok=True)
            try:
                script = 'apt-get download -q "$1" && dpkg-deb --extract "$1"_*.deb . && rm "$1"_*.deb'
                what = f"Debian's package {package}"
                run(["sh", "-c", f'cd "$2" && {script}', "sh", package, str(folder)], what=what, timeout=120)
            except LabError as error:
                pytest.skip(f"no {package} on this machine, and its package cannot be had: {error}")
    return str(target)
