#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: kernel parameters, in a drop-in for the next boot and in the running kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.config_files import snapshot, write_atomically

DOCUMENTATION = r"""
module: kernel_parameters
short_description: Set kernel parameters for now and for the next boot, and say which the kernel refused
description:
  - All parameters in one task. The value in the running kernel is compared each time, so that one changed by
    hand is put back.
  - In a container only the parameters that belong to its own namespaces are touched. The others belong to the
    machine outside and are listed in C(foreign).
options:
  path: {description: The drop-in in /etc/sysctl.d., type: path, required: true}
  header: {description: First line of the drop-in., type: str, default: "# Ansible managed"}
  parameters: {description: "Name: value; null leaves a parameter alone.", type: dict, required: true}
  container: {description: Whether this host is a container., type: bool, default: false}
  record:
    description: Where it is written down which values this host was given, for its fingerprint. Empty writes nothing.
    type: path
    default: /var/lib/redoubt/kernel_parameters.json
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Set the kernel parameters
  kernel_parameters:
    path: /etc/sysctl.d/60-redoubt.conf
    parameters: {net.core.somaxconn: 4096}
"""

RETURN = r"""
updated: {description: "What changed in the running kernel: name, was, now.", type: list, returned: always}
refused: {description: "What the running kernel did not take: name, has, wanted, why.", type: list, returned: always}
foreign: {description: Names that belong to the machine around this container., type: list, returned: always}
"""

PROC = "/proc/sys"
# Beside all of net.*, these are per namespace (IPC, mqueue, UTS) in Linux.
NAMESPACED = ("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.", "kernel.domainname")


def proc_file(name: str, proc: str = PROC) -> str:
    """The file of a parameter: dots part the names, a slash inside a name stands for a dot (as in sysctl.conf)."""
    return os.path.join(proc, *(part.replace("/", ".") for part in name.split(".")))


def same(left: str, right: str) -> bool:
    """Whether two values are the same to the kernel, which parts numbers by tabs or blanks."""
    return left.split() == right.split()


def document(header: str, parameters: dict[str, str]) -> str:
    """The text of the drop-in."""
    return "\n".join([header, *(f"{name} = {value}" for name, value in sorted(parameters.items()))]) + "\n"


def set_live(name: str, wanted: str, check: bool, proc: str = PROC) -> dict[str, str] | None:
    """Bring one parameter of the running kernel to `wanted`.

    Returns None when it has that value already, else a row {name, wanted, has or was, why (when refused)}.
    """
    path = proc_file(name, proc)
    try:
        has = Path(path).read_text().strip()
    except FileNotFoundError:
        return {"name": name, "wanted": wanted, "has": "", "why": "this kernel has no such parameter"}
    except OSError as error:
        return {"name": name, "wanted": wanted, "has": "", "why": os.strerror(error.errno or 0)}
    if same(has, wanted):
        return None
    row = {"name": name, "wanted": wanted, "was": has}
    if check:
        return row
    try:
        Path(path).write_text(wanted)
        now = Path(path).read_text().strip()
    except OSError as error:
        return {"name": name, "wanted": wanted, "has": has, "why": os.strerror(error.errno or 0)}
    if not same(now, wanted):
        return {"name": name, "wanted": wanted, "has": now, "why": "the kernel keeps another value"}
    return row


def remember(record: str | None, path: str, parameters: dict[str, str]) -> None:
    """Write down what the kernel took and in which drop-in, if it is not written down so already."""
    text = json.dumps({"schema": 1, "path": path, "parameters": parameters}, indent=2, sort_keys=True) + "\n"
    if record and snapshot(record).data != text.encode():
        write_atomically(record, text.encode(), 0o644, 0, 0)


def apply(params: dict[str, Any], check: bool, proc: str = PROC) -> dict[str, Any]:
    """Do what the module's documentation says and return its result."""
    wanted = {name: str(value) for name, value in params["parameters"].items() if value is not None}
    foreign = sorted(n for n in wanted if params["container"] and not n.startswith(NAMESPACED))
    mine = {name: value for name, value in wanted.items() if name not in foreign}
    text = document(params["header"], mine)
    now = snapshot(params["path"])
    file_changed = now.data != text.encode() or now.mode != 0o644
    if file_changed and not check:
        write_atomically(params["path"], text.encode(), 0o644, 0, 0)
    rows = [row for name, value in sorted(mine.items()) if (row := set_live(name, value, check, proc))]
    refused = {row["name"] for row in rows if "why" in row}
    if not check:
        remember(params.get("record"), params["path"], {n: value for n, value in mine.items() if n not in refused})
    updated = [row for row in rows if "why" not in row]
    return {
        "changed": file_changed or bool(updated),
        "updated": updated,
        "refused": [row for row in rows if "why" in row],
        "foreign": foreign,
        "diff": {
            "before_header": params["path"],
            "after_header": params["path"],
            "before": now.data.decode(errors="replace"),
            "after": text,
        },
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "header": {"type": "str", "default": "# Ansible managed"},
            "parameters": {"type": "dict", "required": True},
            "container": {"type": "bool", "default": False},
            "record": {"type": "path", "default": "/var/lib/redoubt/kernel_parameters.json"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**apply(module.params, module.check_mode))


if __name__ == "__main__":
    main()
