#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring what a depot lacks of a lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer, plural
from ansible.module_utils.artifacts.progress import Progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.gather.job import Gathering, Origins, lacking
from ansible.module_utils.gather.registry import docker_logins
from ansible.module_utils.lock.document import checked

DOCUMENTATION = r"""
module: gather
short_description: Bring what a depot lacks of a lock
description:
  - Packages come through APT's own fetcher from where they were locked, images from archives or from their registry,
    models from the sources given, wheels through pip. Kinds are brought side by side; every byte is proved by the
    lock before the depot has it.
  - What came stays when something else cannot be had, and what was cut short is continued by the next run. Nothing
    that is served changes; the module M(depot) puts the lock in force.
options:
  lock: {description: The lock document, type: dict, required: true}
  indexes: {description: "Package lists by PLATFORM/PATH, as the lock's folder has them", type: dict, default: {}}
  packages: {description: "Folder with files of packages as PLATFORM/PATH, which are not fetched again", type: path}
  directory: {description: The depot, type: path, default: /srv/redoubt/depot}
  images:
    description: "file:///FOLDER of archives, C(registry), or registry://HOST:PORT/PREFIX"
    type: str
    default: registry
  models: {description: "Sources of models, as M(weights) takes them", type: list, elements: raw, default: []}
  project: {description: File of the project's own tree, type: path}
  python: {description: Python that has pip; the module's own when empty, type: str, default: ""}
  python_index:
    description: Where wheels are, https://SERVER/simple or file:///FOLDER; what pip is set up with when empty.
    type: str
    default: ""
  ca_file: {description: Certificate authority for https; the system's when empty, type: str, default: ""}
  proxy: {description: Proxy; what the environment says when empty, type: str, default: ""}
  no_proxy: {description: Hosts without a proxy, type: str, default: ""}
  connections: {description: Connections for images and for models, type: int, default: 8}
  bandwidth: {description: Bytes per second of each of both; 0 for no limit, type: int, default: 0}
  timeout: {description: Seconds for one call of APT's fetcher or pip, type: int, default: 3600}
  progress_file: {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/gather.json}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Gather
  gather:
    lock: "{{ lock }}"
    images: file:///media/redoubt/images
    models: [file:///media/redoubt/models]
"""

RETURN = r"""
missing: {description: "What was missing, as kind, name, version, path, sha256, size", type: list, returned: always}
bytes: {description: Bytes of that, type: int, returned: always}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises Refusal, OSError."""
    lock = checked(params["lock"])
    depot = Depot(Path(params["directory"]))
    missing = lacking(depot, lock)
    total = sum(part.size for part in missing)
    rows = [
        {key: getattr(part, key) for key in ("kind", "name", "version", "path", "sha256", "size")} for part in missing
    ]
    result = {"changed": bool(missing), "missing": rows, "bytes": total}
    if check or not missing:
        return result
    network = Network(params["ca_file"], 60, params["proxy"], params["no_proxy"])
    origins = Origins(
        images=params["images"],
        models=params["models"],
        project=Path(params["project"]) if params["project"] else None,
        python=params["python"],
        python_index=params["python_index"],
        indexes=params["indexes"],
        packages=Path(params["packages"]) if params["packages"] else None,
        network=network,
        logins=docker_logins(),
        timeout=params["timeout"],
    )
    limits = Limits(connections=params["connections"], bandwidth=params["bandwidth"])
    progress = Progress(Path(params["progress_file"]), "gather", total)
    work = Gathering(depot, lock, origins, progress.add, limits)
    try:
        problems = work.run(missing)
    finally:
        progress.finish()
    if problems:
        came = f"{plural(len(work.brought), 'file')} of {len(missing)} came and stay; run this again for the others:"
        raise Refusal([f"{depot.root}: {came}", *problems])
    return result


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "dict", "required": True},
            "indexes": {"type": "dict", "default": {}},
            "packages": {"type": "path"},
            "directory": {"type": "path", "default": "/srv/redoubt/depot"},
            "images": {"type": "str", "default": "registry"},
            "models": {"type": "list", "elements": "raw", "default": []},
            "project": {"type": "path"},
            "python": {"type": "str", "default": ""},
            "python_index": {"type": "str", "default": ""},
            "ca_file": {"type": "str", "default": ""},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "connections": {"type": "int", "default": 8},
            "bandwidth": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 3600},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/gather.json"},
        },
        supports_check_mode=True,
    )
    answer(module, run, module.params["directory"])


if __name__ == "__main__":
    main()
