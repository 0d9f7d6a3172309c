#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: wait until the GPUs can be used, or say why they cannot."""

from __future__ import annotations

import os
import time
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.gpu.ready import Verdict, verdicts

DOCUMENTATION = r"""
module: gpu_ready
short_description: Wait until the GPUs can be used, or say why they cannot
description:
  - Reads the GPUs as gpu_facts does and compares with what was planned. Only a fabric that is not complete yet is
    waited for; everything else does not mend itself and is said at once. Changes nothing.
options:
  expected:
    description: What was planned.
    type: dict
    required: true
    suboptions:
      driver: {description: Version of the driver., type: str, required: true}
      flavour: {description: open or proprietary., type: str, required: true}
      gpus: {description: PCI addresses of the GPUs., type: list, elements: str, required: true}
      fabric: {description: Whether a fabric manager must bring up NVLink., type: bool, required: true}
      fabric_timeout: {description: Seconds that the fabric may take., type: int, default: 180}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Wait for the GPUs
  gpu_ready:
    expected: {driver: 580.126.20, flavour: open, gpus: ["0000:1b:00.0"], fabric: false}
"""

RETURN = r"""
verdicts: {description: "Each aspect, {aspect, ok, detail, remedy}.", type: list, returned: always}
ansible_facts: {description: "redoubt_gpu, as gpu_facts returns it.", type: dict, returned: always}
"""

PAUSE = 3


def read() -> dict[str, Any]:
    """The facts of this host's GPUs."""
    facts: dict[str, Any] = gather(Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"))
    return facts


def await_ready(
    expected: dict[str, Any],
    look: Callable[[], dict[str, Any]],
    now: Callable[[], float],
    pause: Callable[[float], None],
) -> tuple[dict[str, Any], list[Verdict]]:
    """Look until all is well, nothing but the fabric is amiss and its time is over, or anything else is amiss."""
    end = now() + expected["fabric_timeout"]
    while True:
        facts = look()
        rows = verdicts(facts, expected)
        if {row.aspect for row in rows if not row.ok} != {"fabric"} or now() >= end or not _may_still_come(facts):
            return facts, rows
        pause(PAUSE)


def _may_still_come(facts: dict[str, Any]) -> bool:
    """Whether the fabric manager is at work; one that failed or is of another version never completes."""
    service = facts["services"]["fabric_manager"]
    return service is not None and service["active"] in ("active", "activating")


def main() -> None:
    """Entry point."""
    options = {
        "driver": {"type": "str", "required": True},
        "flavour": {"type": "str", "required": True},
        "gpus": {"type": "list", "elements": "str", "required": True},
        "fabric": {"type": "bool", "required": True},
        "fabric_timeout": {"type": "int", "default": 180},
    }
    module = AnsibleModule(
        argument_spec={"expected": {"type": "dict", "required": True, "options": options}}, supports_check_mode=True
    )
    expected = module.params["expected"]
    if module.check_mode:  # nothing may be there yet, and nothing is waited for
        expected = {**expected, "fabric_timeout": 0}
    facts, rows = await_ready(expected, read, time.monotonic, time.sleep)
    bad = [row for row in rows if not row.ok]
    result = {"changed": False, "verdicts": [row._asdict() for row in rows], "ansible_facts": {"redoubt_gpu": facts}}
    if bad and not module.check_mode:
        lines = [f"- {row.aspect}: {row.detail}. {row.remedy}" for row in bad]
        module.fail_json(
            msg="\n".join(["The GPUs cannot be used; nothing may be served on this host.", *lines]), **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
