"""Debian root file systems by mmdebstrap, from the package sources that this machine is set up with."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path

from lab.archive import EPOCH
from lab.errors import LabError
from lab.report import Report
from lab.tools import require, run

#: Settings of this machine's apt that a root file system needs in order to reach the same sources.
_WANTED = ("Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::Check-", "Acquire::Retries")
_CERTIFICATES = Path("/usr/local/share/ca-certificates")


def apt_options(dump: str) -> list[str]:
    """The lines of `apt-config dump` that say how to reach the package sources (proxy, certificates, clock checks)."""
    return [line for line in dump.splitlines() if line.startswith(_WANTED) and not line.endswith('"";')]


def machine_options() -> list[str]:
    """`apt_options` of this machine; empty where it has no apt."""
    try:
        return apt_options(run(["apt-config", "dump"], what="apt's configuration", timeout=30))
    except LabError:
        return []


def bootstrap(
    suite: str,
    output: Path,
    *,
    variant: str,
    include: Sequence[str],
    report: Report,
    stop: threading.Event,
    hooks: Sequence[str] = (),
    excludes: Sequence[str] = (),
) -> None:
    """Write a root file system of ``suite`` with these packages as a tar file.

    ``hooks`` are shell scripts that run with the root as ``$1`` once all is installed; ``excludes`` are paths that
    dpkg leaves out. Raises LabError where mmdebstrap fails.
    """
    require({"mmdebstrap": "mmdebstrap", "gpg": "gpg"}, report)
    command = ["mmdebstrap", "--quiet", "--format=tar", f"--variant={variant}", f"--include={','.join(include)}"]
    command += [f"--aptopt={line}" for line in machine_options()]
    command += [f"--dpkgopt=path-exclude={path}" for path in excludes]
    for hook in (*_certificates(variant), *hooks):
        command.append(f"--customize-hook={hook}")
    command += ["--skip=output/dev", suite, str(output)]
    try:
        environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "DEBIAN_FRONTEND": "noninteractive"}
        run(command, what=f"a {suite} root file system", timeout=600, env=environment, stop=stop)
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _certificates(variant: str) -> list[str]:
    """A hook that gives the root this machine's own certificate authorities, where it has any."""
    if variant == "extract" or not _CERTIFICATES.is_dir() or not any(_CERTIFICATES.glob("*.crt")):
        return []
    source = shlex.quote(str(_CERTIFICATES))
    return [
        f'mkdir -p "$1{_CERTIFICATES}" && cp {source}/*.crt "$1{_CERTIFICATES}/" '
        '&& if [ -x "$1/usr/sbin/update-ca-certificates" ]; then chroot "$1" update-ca-certificates >/dev/null; fi'
    ]


def site_addresses(hosts_file: str, own_names: Sequence[str]) -> dict[str, str]:
    """Names that this machine's /etc/hosts gives an address elsewhere: lab hosts must know them too.

    Leaves out loopback addresses, the names that every machine has, and ``own_names``.
    """
    found: dict[str, str] = {}
    for line in hosts_file.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if not names or address.startswith(("127.", "::1", "fe00:", "ff0", "fe80:")):
            continue
        for name in names:
            if name not in own_names:
                found.setdefault(name, address)
    return found


def machine_sites() -> dict[str, str]:
    """`site_addresses` of this machine."""
    own = os.uname().nodename
    try:
        text = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return site_addresses(text, [own, own.partition(".")[0], "localhost"])
