#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: which exact packages a platform needs, and their files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.closure import repos, resolve_dnf
from ansible.module_utils.closure.apt_root import AptRoot
from ansible.module_utils.closure.debs import fetch
from ansible.module_utils.closure.dnf_root import DnfRoot
from ansible.module_utils.closure.platforms import Platform, UnknownPlatform, parse
from ansible.module_utils.closure.resolve import Resolver, Wish, document
from ansible.module_utils.closure.sources import checked, key_files, of_machine
from ansible.module_utils.repositories import Untrusted, apt_source, check_key, dnf_source, plain, wanted_key

DOCUMENTATION = r"""
module: package_closure
short_description: Resolve a platform's packages into exact versions with their sums, and fetch the files
description:
  - C(resolved) asks APT or DNF, in a root of its own, which packages the wishes bring onto a base system, and answers
    with the platform's part of a lock. Nothing of the machine that it runs on changes; its packages do not matter.
  - C(fetched) brings the files of C(packages), rows of such an answer, into C(folder). A file that is proved is not
    fetched again; one that was cut short is continued. Each is proved by its SHA-256 before it gets its name.
  - Needs apt, no root and no host of the platform. It can resolve another release and another architecture.
  - A platform of DNF needs the packages dnf, rpm and createrepo-c too, which Debian has, and C(sources). There
    C(resolved) fetches the packages, since their lists are made of the files, and proves who signed them.
options:
  state: {description: What to do., type: str, choices: [resolved, fetched], default: resolved}
  platform: {description: "Such as debian-13-amd64.", type: str, required: true}
  wishes: {description: Packages that each role asks for (names or NAME=VERSION), type: dict, default: {}}
  bootstrap:
    description: Packages that a bare host begins with; all that they need is marked bootstrap.
    type: list
    elements: str
    default: []
  base:
    description: >-
      The base system: minimal is Essential with priority required and important, with DNF what the repositories' group
      core must have.
    type: str
    choices: [minimal]
    default: minimal
  base_packages:
    description: >-
      More names of the base system; by default what Ansible needs on a host. Whatever depends on one exact version of a
      locked package, as sshd does, must be locked too, or it forbids to raise it.
    type: list
    elements: str
  base_status: {description: "In place of base: text of a dpkg status file.", type: str}
  streams: {description: "DNF: modules as NAME:STREAM that are enabled.", type: list, elements: str, default: []}
  sources:
    description: >-
      The platform's package sources: deb822 text, or the text of a .repo file. Without it the machine's own, with the
      platform's code name (APT).
    type: str
    default: ""
  keys:
    description: "Armoured keys by file name; sources name them as Signed-By: KEYRINGS/NAME or gpgkey=file://KEYRINGS/NAME."
    type: dict
    default: {}
  repositories:
    description: More repositories, as the module package_set takes them; their keys are proved by fingerprint.
    type: list
    elements: dict
    default: []
  packages: {description: "fetched: rows {name, sha256, size, path, origin}.", type: list, elements: dict, default: []}
  folder:
    description: >-
      Where the files go, as FOLDER/path. C(resolved) uses it for DNF: what is there and proved is not fetched again.
      Without it they are thrown away.
    type: path
  timeout: {description: Seconds for each command of APT's., type: int, default: 900}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Resolve
  package_closure:
    platform: debian-13-amd64
    wishes: {common: [curl], docker: [docker.io, docker-compose]}
    bootstrap: [nginx]
  register: closure

- name: Fetch
  package_closure:
    state: fetched
    platform: debian-13-amd64
    packages: "{{ closure.platform.packages }}"
    folder: /srv/redoubt/packages/debian-13-amd64
"""

RETURN = r"""
platform: {description: "resolved: the mapping that a lock has under platforms.NAME.", type: dict, returned: resolved}
indexes: {description: "resolved: {path: text} of the lists in platforms.NAME.indexes.", type: dict, returned: resolved}
fetched: {description: "fetched: paths of the files that were fetched now.", type: list, returned: fetched}
bytes: {description: "fetched: their bytes.", type: int, returned: fetched}
"""

KEYRINGS = "KEYRINGS"
HOST_APT = ("dbus", "openssh-server", "python3", "python3-apt", "sudo", "systemd-sysv")
HOST_DNF = ("openssh-server", "python3", "python3-dnf", "sudo")


def repository_sources(rows: Sequence[dict[str, Any]], folder: Path, apt: bool) -> tuple[str, dict[str, str]]:
    """Source text and keys by file name of repositories as package_set takes them. Raises Refusal."""
    texts, keys = [], {}
    for row in rows:
        full = {"suite": "", "components": ["main"], "key": "", "key_url": "", **row}
        try:
            allowed = [plain(item) for item in full["key_fingerprints"]]
            data = wanted_key(full, str(folder / f"{full['name']}.asc"), allowed, check=False)
            check_key(data or b"", allowed, full["key_url"] or "the variable")
        except Untrusted as error:
            raise Refusal(f"repository {full['name']}: {error}") from error
        keys[f"{full['name']}.asc"] = (data or b"").decode()
        texts.append((apt_source if apt else dnf_source)(full, f"{KEYRINGS}/{full['name']}.asc"))
    return "\n".join(texts), keys


def by_apt(params: dict[str, Any], platform: Platform, wish: Wish, folder: Path) -> dict[str, Any]:
    """The answer of state resolved for APT. Raises Refusal."""
    root = AptRoot(folder, platform.architecture, params["timeout"])
    rings = root.folder / "etc/apt/keyrings"
    more, keys = repository_sources(params["repositories"], rings, apt=True)
    text = f"{params['sources'] or of_machine(platform)}\n\n{more}".replace(KEYRINGS, str(rings))
    sources = checked(text)
    own = root.sources(text, {**params["keys"], **keys})
    root.update()
    closure = Resolver(root, platform).closure(wish)
    found, index = document(root, wish, closure, [*own, *map(Path, key_files(sources))])
    return {"changed": False, "platform": found, "indexes": {"Packages": index}}


def by_dnf(params: dict[str, Any], platform: Platform, wish: Wish, folder: Path) -> dict[str, Any]:
    """The answer of state resolved for DNF. Raises Refusal."""
    if not params["sources"]:
        raise Refusal(
            f"{platform.name}: this machine has no package sources of {platform.distribution}; give the platform's own,"
            " as the text of a .repo file, and their keys"
        )
    root = DnfRoot(folder, params["timeout"])
    more, keys = repository_sources(params["repositories"], root.keyrings, apt=False)
    root.keys({**params["keys"], **keys})
    sources = repos.checked(f"{params['sources']}\n{more}".replace(KEYRINGS, str(root.keyrings)))
    files = Path(params["folder"]) if params["folder"] else root.folder / "files"
    found, texts = resolve_dnf.resolve(root, platform, wish, sources, params["streams"], files)
    return {"changed": False, "platform": found, "indexes": texts}


def resolve(params: dict[str, Any]) -> dict[str, Any]:
    """The answer of state resolved. Raises Refusal."""
    try:
        platform = parse(params["platform"])
    except UnknownPlatform as error:
        raise Refusal(str(error)) from error
    host = HOST_APT if platform.apt else HOST_DNF
    wish = Wish(
        roles=params["wishes"],
        bootstrap=params["bootstrap"],
        base=params["base"],
        base_packages=host if params["base_packages"] is None else params["base_packages"],
        base_status=params["base_status"],
    )
    with tempfile.TemporaryDirectory(prefix="redoubt-closure-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # APT fetches as a user of its own
        return (by_apt if platform.apt else by_dnf)(params, platform, wish, folder)


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the documentation says. Raises Refusal and OSError."""
    if params["state"] == "resolved":
        return resolve(params)
    if not params["folder"]:
        raise Refusal("folder: where shall the files go?")
    got = fetch(params["packages"], Path(params["folder"]), params["timeout"], check)
    return {"changed": bool(got), "fetched": [row["path"] for row in got], "bytes": sum(row["size"] for row in got)}


def main() -> None:
    """Entry point."""
    strings: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    rows: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["resolved", "fetched"], "default": "resolved"},
            "platform": {"type": "str", "required": True},
            "wishes": {"type": "dict", "default": {}},
            "bootstrap": strings,
            "base": {"type": "str", "choices": ["minimal"], "default": "minimal"},
            "base_packages": {"type": "list", "elements": "str"},
            "base_status": {"type": "str"},
            "streams": strings,
            "sources": {"type": "str", "default": ""},
            "keys": {"type": "dict", "default": {}, "no_log": False},
            "repositories": {**rows, "no_log": False},
            "packages": rows,
            "folder": {"type": "path"},
            "timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    answer(module, run, "package_closure")


if __name__ == "__main__":
    main()
