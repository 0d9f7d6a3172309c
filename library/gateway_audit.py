#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: prove the gateway's audit log by its seals."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.audit.verifying import verify
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: gateway_audit
short_description: Prove the gateway's audit log by its seals
description:
  - Reads the audit log with its rotated files and the chain of seals again, with code that comes from the control host.
  - Changes nothing. What is wrong is returned in RV(problems), and does not fail the task.
options:
  log: {description: The log; rotated files lie beside it., type: path, default: /var/log/nginx/gateway-audit.jsonl}
  state_dir: {description: Where the seals are., type: path, default: /var/lib/redoubt/audit}
  days: {description: Days that files must stay., type: int, required: true}
  head_seal: {description: Number of a seal that was witnessed earlier; 0 for none., type: int, default: 0}
  head_chain: {description: Its hash., type: str, default: ""}
  grace: {description: Seconds that lines may wait for their seal., type: int, default: 1800}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Prove the audit log
  gateway_audit:
    days: 90
"""

RETURN = r"""
problems: {description: What is wrong; empty when nothing is., type: list, returned: always}
notes: {description: What is worth knowing., type: list, returned: always}
head: {description: "The last seal (seal, chain, time); empty when there is none.", type: dict, returned: always}
seals: {description: Seals in the chain., type: int, returned: always}
files: {description: Files that were read., type: int, returned: always}
gone: {description: Files that were sealed and are older than they must be kept., type: int, returned: always}
lines: {description: Sealed lines that were read., type: int, returned: always}
bytes: {description: Sealed bytes that were read., type: int, returned: always}
"""


def argument_spec() -> dict[str, Any]:
    """The module's arguments in Ansible's form."""
    return {
        "log": {"type": "path", "default": "/var/log/nginx/gateway-audit.jsonl"},
        "state_dir": {"type": "path", "default": "/var/lib/redoubt/audit"},
        "days": {"type": "int", "required": True},
        "head_seal": {"type": "int", "default": 0},
        "head_chain": {"type": "str", "default": ""},
        "grace": {"type": "int", "default": 1800},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    given = module.params
    head = {"seal": given["head_seal"], "chain": given["head_chain"]} if given["head_seal"] else None
    try:
        report = verify(
            Path(given["log"]), Path(given["state_dir"]), given["days"], time.time(), head, float(given["grace"])
        )
    except OSError as error:
        module.fail_json(msg=f"the audit log cannot be read: {error}")
    module.exit_json(changed=False, **vars(report))


if __name__ == "__main__":
    main()
