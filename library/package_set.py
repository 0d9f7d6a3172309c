#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring a set of packages onto a host in one transaction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.config_files import write_atomically
from ansible.module_utils.package_dnf import stream_enabled
from ansible.module_utils.package_lock import Broken, PackageLock, read
from ansible.module_utils.package_services import services_off
from ansible.module_utils.package_tools import Host, Refused, fits, missing, split
from ansible.module_utils.repositories import MODE, Untrusted, differing, leftovers

DOCUMENTATION = r"""
module: package_set
short_description: Install packages in one transaction, touching the package index only when one is missing
description:
  - Asks the package database (dpkg or rpm), which is quick and needs no index and no network.
  - Only when a package is missing are the index refreshed and all missing packages installed, together.
  - Works in check mode on an empty host, where the index or the repository does not exist yet.
  - Files of the configuration that are already there are kept.
  - An installation that was cut short (dpkg was interrupted) is finished first. Packages that were broken before, that
    are held and forbid the new ones, or that would have to be removed are a refusal that names them (APT).
  - Where the host's C(/etc/redoubt/packages.json) says strict, only what it lists is installed, each in its version and
    from bytes with its sum. What is not in it, or would come along and is not in it, is a refusal that names all.
    Where it names a source file, no other source is asked, C(repository) is not written and C(stream) not enabled.
options:
  packages:
    description:
      - Names, or name=version; name=1.2-* is any version that begins so. DNF gets them as name-version.
      - A package that is installed in another version is missing.
    type: list
    elements: str
    required: true
  first:
    description: Packages that are installed in a transaction before, such as one that pins the versions of the others.
    type: list
    elements: str
    default: []
  stream:
    description: "DNF: module and stream that hold the packages, such as name:4; an empty one is none."
    type: str
    default: ""
  downgrade: {description: Allow older versions than the installed ones (DNF always does)., type: bool, default: false}
  hold:
    description:
      - true holds the packages (apt-mark, dnf versionlock), so that no upgrade of the whole system moves them; false
        releases them. With either, what is held moves here. Without it holds are left alone.
    type: bool
  gives_way:
    description: >-
      Packages (globs) that may make room for missing ones, held or not, as after a change of names. Where any other one
      would have to go, that is a refusal.
    type: list
    elements: str
    default: []
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
      suite: {description: "APT: suite, such as a code name; / for a flat repository.", type: str, default: ""}
      components: {description: "APT: components.", type: list, elements: str, default: [main]}
      key: {description: The armoured public key itself., type: str, default: ""}
      key_url: {description: Where to fetch the key from when C(key) is empty., type: str, default: ""}
      key_fingerprints: {description: Fingerprints the key may have., type: list, elements: str, required: true}
      leftovers:
        description:
          - Source files (globs) of earlier installations. One that exists is a refusal, and so is any other source file
            that names this repository's address, since APT reads no source at all when two name different keys.
        type: list
        elements: path
        default: []
      remove_leftovers: {description: Remove them instead of refusing., type: bool, default: false}
  start_services:
    description: false keeps services that come with new packages from being started by them (APT; DNF starts none).
    type: bool
    default: true
  installed_too:
    description: Where the host's packages are locked, bring all that are installed and older than locked to the lock's.
    type: bool
    default: false
  remedy: {description: Sentence that a refusal ends with., type: str, default: ""}
  timeout: {description: Seconds for the whole transaction., type: int, default: 1800}
author: Redoubt contributors
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

- name: Install one version of two packages and keep it
  package_set:
    packages: [engine=4.2-*, engine-tools=4.2-*]
    hold: true
"""

RETURN = r"""
missing: {description: Packages that were (or in check mode would be) installed., type: list, returned: always}
sources: {description: "Files of the repository, and the module stream, that differed.", type: list, returned: always}
removed: {description: Source files that were removed., type: list, returned: always}
holds: {description: Packages that were held or released., type: list, returned: always}
versions: {description: Installed version of each package., type: dict, returned: always}
"""


def add_repository(repository: dict[str, Any], apt: bool, check: bool) -> tuple[list[str], list[str]]:
    """Write the key and the source file of a repository, and remove what is in their way if that is wanted.

    Returns the paths that differed and those that were removed. Raises Refused.
    """
    try:
        old = leftovers(repository, apt)
        files = differing(repository, apt, check)
    except Untrusted as error:
        raise Refused(str(error)) from error
    if not check:
        for path in old:
            os.unlink(path)
        for path, data in files.items():
            if data is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, data, MODE, 0, 0)
    return list(files), old


def locked(params: dict[str, Any], lock: PackageLock | None) -> dict[str, Any]:
    """The parameters as the host's lock makes them: exact versions, no source beside its own. Raises Refused."""
    if lock is None:
        return params
    if lock.sources:  # it has what the lock lists, whatever repository and stream that came from
        params = {**params, "repository": None, "stream": ""}
    if not lock.strict:
        return params
    wanted, problem = lock.wanted([*params["first"], *params["packages"]], fits)
    if problem:
        raise Refused(problem)
    count = len(params["first"])
    return {
        **params,
        "first": wanted[:count],
        "packages": wanted[count:],
        "downgrade": params["downgrade"] or lock.downgrade,
    }


def behind(host: Host, lock: PackageLock) -> list[str]:
    """NAME=VERSION of what is installed, not held, and older than locked."""
    found, held = host.state(sorted(lock.packages))
    pairs = [
        (name, version, lock.packages[name]["version"])
        for name, version in sorted(found.items())
        if name not in held and version != lock.packages[name]["version"]
    ]
    newer = {text.partition(" ")[0] for text in host.newer(pairs)}
    return [f"{name}={wanted}" for name, _, wanted in pairs if name not in newer]


def apply(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the module's documentation says and return its result. Raises Refused."""
    try:
        lock = read()
    except Broken as error:
        raise Refused(str(error)) from error
    params = locked(params, lock)
    host = Host(params["timeout"], lock)
    wanted = [*params["first"], *params["packages"]]
    names = [split(item)[0] for item in wanted]
    found, held = host.state([*names, *params["conflicts"]])
    in_the_way = [name for name in params["conflicts"] if name in found]
    if in_the_way:
        raise Refused(
            f"installed already and in conflict with {', '.join(names)}: {', '.join(in_the_way)}."
            f" Nothing was changed. {params['remedy']}".rstrip()
        )
    absent = missing(wanted, found)
    if lock and lock.strict and not params["downgrade"]:
        pairs = [(name, found[name], version) for name, version in map(split, absent) if name in found]
        newer = host.newer(pairs)
        if newer:
            raise Refused(lock.newer(newer))
    sources, removed = add_repository(params["repository"], host.apt, check) if params["repository"] else ([], [])
    if params["stream"] and not stream_enabled(params["stream"]):
        sources.append(f"module stream {params['stream']}")
        if not check:
            host.enable_stream(params["stream"])
    late = [item for item in behind(host, lock) if item not in absent] if _levels(params, lock) and lock else []
    if (absent or late) and not check:
        with services_off(host.apt and not params["start_services"]):
            _install(host, {**params, "packages": [*params["packages"], *late]}, found, held, names)
        found, held = host.state(names)
        still = missing(wanted, found)
        if still:
            raise Refused(f"the package tool reports success, yet these are not installed: {', '.join(still)}")
    kept = [split(item)[0] for item in params["packages"]]
    holds = [name for name in kept if (name in held) != params["hold"]] if params["hold"] is not None else []
    if holds and not check:
        host.hold(holds, params["hold"])
    sign = "+" if params["hold"] else "-"
    lines = [*(f"- {path}" for path in removed), *(f"+ {item}" for item in [*sources, *absent, *late])]
    lines += [f"{sign} hold {name}" for name in holds]
    return {
        "changed": bool(absent or late or sources or removed or holds),
        "missing": [*absent, *late],
        "sources": sources,
        "removed": removed,
        "holds": holds,
        "versions": {name: found[name] for name in names if name in found},
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)},
    }


def _levels(params: dict[str, Any], lock: PackageLock | None) -> bool:
    return bool(lock and lock.strict and params["installed_too"])


def _install(host: Host, params: dict[str, Any], found: dict[str, str], held: set[str], names: list[str]) -> None:
    """Bring what is missing: first the packages that go before the others, then the others together."""
    wanted = [*params["first"], *params["packages"], *params["conflicts"]]
    ours = [*(split(item)[0] for item in wanted), *params["gives_way"]]
    stale = host.refresh(ours)
    # APT moves held packages when told so, but removes none; DNF does neither.
    yielding = host.holds(params["gives_way"]) if params["hold"] is not None else []
    locked = yielding + ([] if host.apt else sorted(held - {*yielding}))
    if locked:
        host.hold(locked, False)
    try:
        for group in (params["first"], params["packages"]):
            absent = missing(group, found)
            if absent:
                host.install(absent, stale, ours, older=params["downgrade"], held=params["hold"] is not None)
    except Refused:
        if locked:
            host.hold(locked, True)
        raise
    # Those that are still there and none of this set stay held: somebody else holds them.
    others = {name.partition(":")[0]: name for name in yielding if name.partition(":")[0] not in names}
    left = [others[name] for name in host.state(list(others))[0]]
    if left:
        host.hold(left, True)


def main() -> None:
    """Entry point."""
    strings: dict[str, Any] = {"type": "list", "elements": "str"}
    text: dict[str, Any] = {"type": "str"}
    module = AnsibleModule(
        argument_spec={
            "packages": {**strings, "required": True},
            "first": {**strings, "default": []},
            "stream": {**text, "default": ""},
            "downgrade": {"type": "bool", "default": False},
            "hold": {"type": "bool"},
            "gives_way": {**strings, "default": []},
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
                    "leftovers": {"type": "list", "elements": "path", "default": []},
                    "remove_leftovers": {"type": "bool", "default": False},
                },
            },
            "start_services": {"type": "bool", "default": True},
            "installed_too": {"type": "bool", "default": False},
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
