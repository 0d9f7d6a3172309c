#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: a CDI specification that says what GPUs the host has now."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.cdi import faults
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.probes import run

DOCUMENTATION = r"""
module: cdi_spec
short_description: Refresh the CDI specification where it does not say what GPUs the host has now
description:
  - Compares the CDI specifications for nvidia.com/gpu with the loaded driver and with the GPUs and MIG devices that
    nvidia-smi lists. Where they differ it has the specification written anew and compares again.
  - Fails when they still differ, or when a planned device is none of the host's.
options:
  devices:
    description: Planned devices, as CDI names them (index, UUID, GPU:NUMBER for a MIG device).
    type: list
    elements: str
    default: []
  unit: {description: The unit that writes the specification., type: str, default: nvidia-cdi-refresh.service}
  timeout: {description: Seconds for looking; the same again for looking after the refresh., type: int, default: 60}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Bring the CDI specification up to date
  cdi_spec:
    devices: ["0", "1"]
"""

RETURN = r"""
faults: {description: What was wrong before., type: list, returned: always}
"""


def look(devices: list[str], seconds: int) -> list[str]:
    """What is wrong now."""
    host = Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}", seconds)
    found: list[str] = faults(gather(host), devices)
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "str", "default": []},
            "unit": {"type": "str", "default": "nvidia-cdi-refresh.service"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    params: dict[str, Any] = module.params
    before = look(params["devices"], params["timeout"])
    if before and not module.check_mode:
        status, said = run(["systemctl", "restart", params["unit"]], 120)
        left = look(params["devices"], params["timeout"])
        if left:
            why = f" {params['unit']} could not be started: {said}." if status else ""
            module.fail_json(
                msg=f"CDI: {'; '.join(left)}.{why} The specification was written anew before this was found."
                f" Read 'journalctl -u {params['unit']}' and compare 'nvidia-smi -L' with 'nvidia-ctk cdi list'.",
                faults=left,
            )
    module.exit_json(changed=bool(before), faults=before)


if __name__ == "__main__":
    main()
