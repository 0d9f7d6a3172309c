#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the installed driver in the place of the loaded one, without a restart of the host."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.aside import Stays, active, aside, holders
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.probes import run

DOCUMENTATION = r"""
module: gpu_reload
short_description: Put the installed NVIDIA driver in the place of the loaded one, without a restart of the host
description:
  - Stops the given services and containers that run, unloads NVIDIA's modules, loads the same ones as they are
    installed now, and starts services and containers again.
  - Where an engine runs nothing is stopped; that is no failure, but an answer as the next.
  - The kernel unloads no module that is in use. That is no failure; then the answer says who uses it, the loaded driver
    stays, and a restart of the host is needed.
options:
  services:
    description: Units that hold GPUs open and may be stopped meanwhile.
    type: list
    elements: str
    default: []
  containers:
    description: Containers that hold GPUs open and may be stopped meanwhile, such as an exporter.
    type: list
    elements: str
    default: []
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Load the driver that was just installed
  gpu_reload:
    services: [nvidia-persistenced.service, nvidia-fabricmanager.service]
"""

RETURN = r"""
why_not: {description: Why the loaded driver stays; empty when it was exchanged., type: str, returned: always}
ansible_facts: {description: "redoubt_gpu, as gpu_facts returns it.", type: dict, returned: always}
"""

# Each before those that it uses.
MODULES = ("nvidia_peermem", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia")
MODULES_FOLDER = "/sys/module"


class Failed(Exception):
    """The host has no driver any more; the text is for the operator."""


def running(containers: list[str]) -> list[str]:
    """Those of the containers that run; none where there is no Docker."""
    status, said = run(["docker", "ps", "--format", "{{.Names}}"], 60)
    return [name for name in containers if status == 0 and name in said.split()]


def running_engines() -> list[str]:
    """Containers of engines that run."""
    status, said = run(["docker", "ps", "--filter", "label=redoubt.engine", "--format", "{{.Names}}"], 60)
    return said.split() if status == 0 else []


def exchange(services: list[str], containers: list[str], check: bool) -> tuple[bool, str]:
    """Unload and load; returns whether something was done, and why the loaded driver stays. Raises Failed."""
    loaded = [name for name in MODULES if os.path.isdir(os.path.join(MODULES_FOLDER, name))]
    if not loaded or check:
        return bool(loaded), ""
    engines = running_engines()
    if engines:  # their fabric must not be stopped under them, even if the modules stay
        return False, f"{', '.join(engines)} run here: drain the host first"
    try:
        with aside(active(services, run), running(containers), run):
            status, said = run(["modprobe", "-r", *loaded], 120)
            who = ", ".join(holders()) if status else ""
            # Also what was unloaded before the one that is in use.
            back, complaint = run(["modprobe", "--all", *reversed(loaded)], 300)
    except Stays as error:
        return True, str(error)
    if status:
        return True, said.strip()[-400:] + (f" GPUs are open in {who}" if who else "")
    if back:
        raise Failed(
            f"the old driver was unloaded, and the installed one does not load: {complaint.strip()[-800:]}."
            " Read 'dmesg' for NVRM and 'dkms status'; a restart of the host tries it again."
        )
    return True, ""


def main() -> None:
    """Entry point."""
    strings: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(argument_spec={"services": strings, "containers": strings}, supports_check_mode=True)
    try:
        changed, why_not = exchange(module.params["services"], module.params["containers"], module.check_mode)
    except Failed as error:
        module.fail_json(msg=str(error))
    facts = gather(Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"))
    module.exit_json(changed=changed, why_not=why_not, ansible_facts={"redoubt_gpu": facts})


if __name__ == "__main__":
    main()
