#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring a set of packages onto a host in one transaction."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.config_files import write_atomically
from ansible.module_utils.repositories import MODE, Untrusted, differing

DOCUMENTATION = r"""
module: package_set
short_description: Install packages in one transaction, touching the package index only when one is missing
description:
  - Asks the package database (dpkg or rpm), which is quick and needs no index and no network.
  - Only when a package is missing are the index refreshed and all missing packages installed, together.
  - Works in check mode on an empty host, where the index or the repository does not exist yet.
  - Files of the configuration that are already there are kept.
  - An installation that was cut short (dpkg was interrupted) is finished first.
options:
  packages:
    description: Names, on Debian also name=version.
    type: list
    elements: str
    required: true
  conflicts:
    description: Packages that make this set impossible. Installed ones are a refusal; none is ever removed.
    type: list
    elements: str
    default: []
  repository:
    description:
      - Repository that they come from, if it is not the host's own. Its key is written beside it and signs for it alone
        (Signed-By, gpgkey=file). A key file with any key whose fingerprint is not listed is refused before anything is
        written. A key that is on the host already is not fetched again.
    type: dict
    suboptions:
      name: {description: Name of the files that are written., type: str, required: true}
      url: {description: Address of the repository., type: str, required: true}
      suite: {description: "APT: suite, such as a code name.", type: str, default: ""}
      components: {description: "APT: components.", type: list, elements: str, default: [main]}
      key: {description: The armoured public key itself., type: str, default: ""}
      key_url: {description: Where to fetch the key from when C(key) is empty., type: str, default: ""}
      key_fingerprints: {description: Fingerprints the key may have., type: list, elements: str, required: true}
  remedy: {description: Sentence that a refusal ends with., type: str, default: ""}
  timeout: {description: Seconds for the whole transaction., type: int, default: 1800}
author: Redoubt founders
"""

EXAMPLES = r"""
- name: Install the engine
  package_set:
    packages: [docker.io, docker-compose]
    conflicts: [docker-ce]

- name: Install from a repository of its own
  package_set:
    packages: [engine]
    repository:
      name: engine
      url: https://packages.example.org/linux/debian
      suite: trixie
      components: [stable]
      key_url: https://packages.example.org/linux/debian/gpg
      key_fingerprints: ["0123 4567 89AB CDEF 0123  4567 89AB CDEF 0123 4567"]
"""

RETURN = r"""
missing: {description: Packages that were (or in check mode would be) installed., type: list, returned: always}
sources: {description: Files of the repository that were written., type: list, returned: always}
versions: {description: Installed version of each package., type: dict, returned: always}
"""

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


class Refused(Exception):
    """The packages cannot be had; the text is for the operator."""


def parse_dpkg(output: str) -> dict[str, str]:
    """Versions of the installed packages in the output of dpkg-query with QUERY_DPKG's format."""
    versions = {}
    for line in output.splitlines():
        name, status, version = line.split("\t")
        # "hold ok installed" counts too; "deinstall ok config-files" does not.
        if status.split()[-1] == "installed":
            versions[name] = version
    return versions


def parse_rpm(output: str) -> dict[str, str]:
    """Versions of the installed packages in the output of rpm -q with QUERY_RPM's format."""
    return dict(line.split("\t") for line in output.splitlines() if line.count("\t") == 1)


def missing(packages: list[str], versions: dict[str, str]) -> list[str]:
    """Those of `packages` (name or name=version) that are not there in that version."""
    absent = []
    for wanted in packages:
        name, _, version = wanted.partition("=")
        if name not in versions or (version and versions[name] != version):
            absent.append(wanted)
    return absent


QUERY_DPKG = ["dpkg-query", "-W", "-f=${Package}\t${Status}\t${Version}\n"]
QUERY_RPM = ["rpm", "-q", "--qf=%{NAME}\t%{VERSION}-%{RELEASE}\n"]


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

    def versions(self, names: list[str]) -> dict[str, str]:
        """Installed versions of those of `names` that are installed."""
        if not names:
            return {}
        query = QUERY_DPKG if self.apt else QUERY_RPM
        _, output = self._run([*query, *names], merge=False)
        return parse_dpkg(output) if self.apt else parse_rpm(output)

    def install(self, packages: list[str]) -> None:
        """Refresh the index and install. Raises Refused with the package tool's own words."""
        tool = APT if self.apt else DNF
        # A failing refresh is no failure yet: the package may be in an index that is already here.
        refreshed, said = self._run([*tool, "update"]) if self.apt else (0, "")
        if self.apt:
            # After a power cut in an installation apt refuses to go on before this; else it has nothing to do.
            self._run(["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"])
        status, output = self._run([*tool, "install", *packages])
        if status:
            hint = f" The index could not be refreshed before: {said[-600:]}" if refreshed else ""
            raise Refused(
                f"cannot install {', '.join(packages)}: {output[-1500:]}{hint}"
                " - look at the package sources of this host and its way to them."
            )

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


def add_repository(repository: dict[str, Any], apt: bool, check: bool) -> list[str]:
    """Write the key and the source file of a repository; returns the paths that differed. Raises Refused."""
    try:
        files = differing(repository, apt, check)
    except Untrusted as error:
        raise Refused(str(error)) from error
    for path, data in files.items():
        if data is not None and not check:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, MODE, 0, 0)
    return list(files)


def apply(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the module's documentation says and return its result. Raises Refused."""
    host = Host(params["timeout"])
    names = [wanted.partition("=")[0] for wanted in params["packages"]]
    found = host.versions([*names, *params["conflicts"]])
    in_the_way = [name for name in params["conflicts"] if name in found]
    if in_the_way:
        raise Refused(
            f"installed already and in conflict with {', '.join(names)}: {', '.join(in_the_way)}."
            f" Nothing was changed. {params['remedy']}".rstrip()
        )
    sources = add_repository(params["repository"], host.apt, check) if params["repository"] else []
    absent = missing(params["packages"], found)
    if absent and not check:
        host.install(absent)
        found = host.versions(names)
        still = missing(params["packages"], found)
        if still:
            raise Refused(f"the package tool reports success, yet these are not installed: {', '.join(still)}")
    return {
        "changed": bool(absent or sources),
        "missing": absent,
        "sources": sources,
        "versions": {name: found[name] for name in names if name in found},
        "diff": {"before": "", "after": "".join(f"+ {item}\n" for item in [*sources, *absent])},
    }


def main() -> None:
    """Entry point."""
    strings: dict[str, Any] = {"type": "list", "elements": "str"}
    text: dict[str, Any] = {"type": "str"}
    module = AnsibleModule(
        argument_spec={
            "packages": {**strings, "required": True},
            "conflicts": {**strings, "default": []},
            "repository": {
                "type": "dict",
                "options": {
                    "name": {**text, "required": True},
                    "url": {**text, "required": True},
                    "suite": {**text, "default": ""},
                    "components": {**strings, "default": ["main"]},
                    "key": {**text, "default": "", "no_log": False},
                    "key_url": {**text, "default": "", "no_log": False},
                    "key_fingerprints": {**strings, "required": True, "no_log": False},
                },
            },
            "remedy": {**text, "default": ""},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    try:
        result = apply(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
