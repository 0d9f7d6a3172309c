#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What preflight must know of a host, in one connection: Ansible's own facts and what they lack."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.inventory import read_inventory
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.drained import read_marks
from ansible.module_utils.facts import ansible_collector, default_collectors
from ansible.module_utils.facts.namespace import PrefixFactNamespace
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.gpu.pci import count_gpus

DOCUMENTATION = r"""
module: host_facts
short_description: Ansible's facts of a host, with free disk space, GPUs, images and published weights
description:
  - Gathers the facts of ansible.builtin.setup and, under C(ansible_facts.redoubt_host), what it does not tell.
  - Changes nothing. Needs root to see Docker's images.
options:
  gather_subset:
    description: Subsets of Ansible's own facts.
    type: list
    elements: str
    default: [min]
  gather_timeout:
    description: Seconds after which a single one of Ansible's collectors is given up.
    type: int
    default: 10
  paths:
    description: Paths whose free space is wanted; the nearest folder that exists is measured.
    type: list
    elements: str
    default: []
  models_root:
    description: Folder that holds published weights as NAME/REVISION.
    type: path
    default: /srv/redoubt/models
  weights_state_dir:
    description: Folder that holds the inventory of the weights.
    type: path
    default: /var/lib/redoubt/weights
author:
  - Redoubt contributors
"""

EXAMPLES = r"""
- name: Gather the host's facts
  host_facts:
    paths: [/var/lib/docker, /srv/redoubt]
"""

RETURN = r"""
ansible_facts:
  description: >-
    Ansible's facts; redoubt_host with disks, cpus, memory_bytes, gpus, images, weights, and by published folder
    tensor_bytes, tensor_dtypes (bytes by type) and geometry (what config.json says); redoubt_gpu (see gpu_facts) on a
    host with NVIDIA GPUs; redoubt_drained.
  returned: always
  type: dict
"""

# What setup always gathers.
MINIMAL_SUBSET = (
    "apparmor",
    "caps",
    "cmdline",
    "date_time",
    "distribution",
    "dns",
    "env",
    "fips",
    "local",
    "lsb",
    "pkg_mgr",
    "platform",
    "python",
    "selinux",
    "service_mgr",
    "ssh_pub_keys",
    "user",
)
DOCKER_SECONDS = 10


def free_space(path: str) -> dict[str, object]:
    """Return {filesystem, free_bytes} of the nearest folder that exists."""
    folder = os.path.abspath(path)
    while not os.path.exists(folder) and folder != "/":
        folder = os.path.dirname(folder)
    status = os.statvfs(folder)
    device = os.stat(folder).st_dev
    mount = folder
    while mount != "/" and os.stat(os.path.dirname(mount)).st_dev == device:
        mount = os.path.dirname(mount)
    return {"filesystem": mount, "free_bytes": status.f_bavail * status.f_frsize}


def memory_bytes(path: str = "/proc/meminfo") -> int | None:
    """Return the host's memory in bytes."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def docker_images() -> list[str]:
    """Return the identifiers and digests of Docker's images; empty when Docker is not there or not running."""
    command = ["docker", "image", "ls", "--all", "--no-trunc", "--digests", "--format", "{{.ID}} {{.Digest}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOCKER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    words = done.stdout.split() if done.returncode == 0 else []
    return sorted({word for word in words if word.startswith("sha256:")})


def published_weights(root: str) -> list[str]:
    """Return the folders ROOT/NAME/REVISION; a folder is published by a rename, so one that is there is whole."""
    found: list[str] = []
    try:
        names = [entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    for name in names:
        found.extend(entry.path for entry in os.scandir(name.path) if entry.is_dir() and not entry.name.startswith("."))
    return sorted(found)


def model_facts(state_dir: str) -> dict[str, dict[str, Any]]:
    """Return {tensor_bytes, tensor_dtypes, geometry}, each by published folder, as far as its files' headers say."""
    rows = [row for rows in read_inventory(Path(state_dir)).get("models", {}).values() for row in rows.values()]
    names = {"tensor_bytes": "tensor_bytes", "tensor_dtypes": "dtypes", "geometry": "config"}
    return {
        ours: {row["path"]: row["facts"][theirs] for row in rows if row["facts"].get(theirs)}
        for ours, theirs in names.items()
    }


def main() -> None:
    """Gather and answer."""
    module = AnsibleModule(
        argument_spec={
            "gather_subset": {"type": "list", "elements": "str", "default": ["min"]},
            "gather_timeout": {"type": "int", "default": 10},
            "paths": {"type": "list", "elements": "str", "default": []},
            "models_root": {"type": "path", "default": "/srv/redoubt/models"},
            "weights_state_dir": {"type": "path", "default": "/var/lib/redoubt/weights"},
        },
        supports_check_mode=True,
    )
    # As ansible.builtin.setup does it, to spare a second connection.
    collector = ansible_collector.get_ansible_collector(
        all_collector_classes=default_collectors.collectors,
        namespace=PrefixFactNamespace(namespace_name="ansible", prefix="ansible_"),
        gather_subset=module.params["gather_subset"],
        gather_timeout=module.params["gather_timeout"],
        minimal_gather_subset=frozenset(MINIMAL_SUBSET),
    )
    facts = collector.collect(module=module)
    facts["redoubt_host"] = {
        "cpus": len(os.sched_getaffinity(0)),
        "disks": {path: free_space(path) for path in module.params["paths"]},
        "gpus": count_gpus(Host()),
        "images": docker_images(),
        "memory_bytes": memory_bytes(),
        **model_facts(module.params["weights_state_dir"]),
        "weights": published_weights(module.params["models_root"]),
    }
    if facts["redoubt_host"]["gpus"]:
        facts["redoubt_gpu"] = gather(Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"))
    try:
        facts["redoubt_drained"] = read_marks()
    except ValueError as error:
        module.fail_json(msg=str(error))
    module.exit_json(ansible_facts=facts)


if __name__ == "__main__":
    main()
