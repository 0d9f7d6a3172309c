#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: ask whether the package sources of a host have a set of packages."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.package_lock import Broken, read
from ansible.module_utils.package_tools import Host, Refused, fits, split
from ansible.module_utils.repositories import paths

DOCUMENTATION = r"""
module: packages_offered
short_description: Ask whether the package sources of a host have a set of packages
description:
  - Refreshes APT's index and looks for each package; installs nothing. With DNF nothing is asked, since what a host is
    offered there depends on module streams and locks that the installation itself changes.
  - Nothing is asked either where the repository is not among the host's sources yet.
options:
  packages:
    description: As those of package_set - names, or name=version; name=1.2-* is any version that begins so.
    type: list
    elements: str
    required: true
  repository: {description: "Name of the repository's files, as package_set writes them.", type: str, default: ""}
  timeout: {description: Seconds for each command., type: int, default: 300}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Ask whether there is such a version
  packages_offered:
    packages: [engine=4.2-*, engine-tools=4.2-*]
    repository: engine
"""

RETURN = r"""
asked: {description: Whether the sources were asked., type: bool, returned: always}
lacking: {description: Packages that the sources do not have in this version., type: list, returned: always}
offered: {description: "Of those, the versions that they have.", type: dict, returned: always}
"""


def look(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Ask, and return the module's result. Raises Refused."""
    try:
        lock = read()
    except Broken as error:
        raise Refused(str(error)) from error
    host = Host(params["timeout"], lock)
    known = (
        bool(lock and lock.sources)
        or not params["repository"]
        or os.path.exists(paths(params["repository"], host.apt)[1])
    )
    if not (host.apt and known):
        return {"asked": False, "lacking": [], "offered": {}}
    names = [split(wanted)[0] for wanted in params["packages"]]
    stale = "" if check else host.refresh(names)
    found, _ = host.state(names)
    offered = host.offered(names)
    lacking = [
        wanted
        for wanted in params["packages"]
        if not fits(wanted, found)
        and not any(fits(wanted, {split(wanted)[0]: one}) for one in offered.get(split(wanted)[0], ()))
    ]
    if lacking and stale:
        raise Refused(f"the package index cannot be refreshed, so nobody knows what there is: {stale}")
    return {
        "asked": True,
        "lacking": lacking,
        "offered": {split(one)[0]: offered.get(split(one)[0], []) for one in lacking},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "repository": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        result = look(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
