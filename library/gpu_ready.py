#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: say whether the GPUs can be used, or why they cannot."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.gpu.ready import Verdict, verdicts

DOCUMENTATION = r"""
module: gpu_ready
short_description: Say whether the GPUs can be used, or why they cannot
description:
  - Reads the GPUs once, as gpu_facts does, and compares with what was planned. Changes nothing.
  - Fails if they cannot be used. A fabric that may still complete is worth another look (C(until), RV(settling));
    everything else does not mend itself.
options:
  expected:
    description: What was planned.
    type: dict
    required: true
    suboptions:
      driver: {description: Version of the driver., type: str, required: true}
      flavour: {description: open or proprietary., type: str, required: true}
      kernel: {description: "Release of the kernel that must run; empty for any.", type: str, default: ""}
      gpus: {description: PCI addresses of the GPUs., type: list, elements: str, required: true}
      fabric:
        description: Whether a fabric manager of this host must bring up NVLink. Where the GPUs say how far the fabric
          is, it must be complete in any case.
        type: bool
        required: true
      count: {description: "GPUs that the host should have; 0: those on its bus.", type: int, default: 0}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Wait for the GPUs
  gpu_ready:
    expected: {driver: 580.126.20, flavour: open, gpus: ["0000:1b:00.0"], fabric: true}
  register: gpus
  until: not gpus.settling
  retries: 36
  delay: 5
"""

RETURN = r"""
settling: {description: Whether only the fabric is amiss and may still complete., type: bool, returned: always}
verdicts: {description: "Each aspect, {aspect, ok, detail, remedy}.", type: list, returned: always}
ansible_facts: {description: "redoubt_gpu, as gpu_facts returns it.", type: dict, returned: always}
"""


def settling(facts: dict[str, Any], rows: list[Verdict], own: bool) -> bool:
    """Whether nothing but the fabric is amiss, and its manager may be at work; one that failed never completes.

    own: whether the manager is this host's, for no other can be asked.
    """
    service = facts["services"]["fabric_manager"]
    at_work = not own or (service is not None and service["active"] in ("active", "activating"))
    return at_work and {row.aspect for row in rows if not row.ok} == {"fabric"}


def main() -> None:
    """Entry point."""
    options = {
        "driver": {"type": "str", "required": True},
        "flavour": {"type": "str", "required": True},
        "gpus": {"type": "list", "elements": "str", "required": True},
        "fabric": {"type": "bool", "required": True},
        "count": {"type": "int", "default": 0},
        "kernel": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={"expected": {"type": "dict", "required": True, "options": options}}, supports_check_mode=True
    )
    facts = gather(Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"))
    expected = module.params["expected"]
    rows = verdicts(facts, expected)
    bad = [row for row in rows if not row.ok]
    result = {"changed": False, "verdicts": [row._asdict() for row in rows], "ansible_facts": {"redoubt_gpu": facts}}
    # In check mode nothing may be there yet, and nothing is waited for.
    result["settling"] = settling(facts, rows, expected["fabric"]) and not module.check_mode
    if bad and not module.check_mode:
        lines = [f"- {row.aspect}: {row.detail}. {row.remedy}" for row in bad]
        module.fail_json(
            msg="\n".join(["The GPUs cannot be used; nothing may be served on this host.", *lines]), **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
