#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: note on this machine that a host is drained, or that it is back."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.drained import FILE, changed_marks, read_marks, write_marks

DOCUMENTATION = r"""
module: drained_mark
short_description: Note on a machine that a host is drained, or that it is back
description:
  - Keeps one small JSON file, which C(host_facts) reads, so that every later run leaves a drained host out of the pool.
  - Also in check mode the fact C(redoubt_drained) is set as it will be, so that the plan can be shown.
options:
  host: {description: Name of the host in the inventory., type: str, required: true}
  state: {description: Whether it is drained., type: str, choices: [present, absent], default: present}
  since: {description: "When, in UTC and ISO 8601. An earlier mark stays as it is.", type: str, default: ""}
  by: {description: Who., type: str, default: ""}
  reason: {description: Why., type: str, default: ""}
  path: {description: The file., type: path, default: /var/lib/redoubt/drained.json}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Mark the host as drained
  drained_mark:
    host: gpu3
    since: "2026-01-31T09:00:00Z"
    by: alice
    reason: new driver
"""

RETURN = r"""
ansible_facts: {description: "redoubt_drained, the marks {host: {since, by, reason}}.", type: dict, returned: always}
"""


def main() -> None:
    """Entry point."""
    spec = {
        "host": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "since": {"type": "str", "default": ""},
        "by": {"type": "str", "default": ""},
        "reason": {"type": "str", "default": ""},
        "path": {"type": "path", "default": FILE},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    try:
        before = read_marks(params["path"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    mark = {key: params[key] for key in ("since", "by", "reason")} if params["state"] == "present" else None
    after = changed_marks(before, params["host"], mark)
    if after != before and not module.check_mode:
        write_marks(after, params["path"])
    module.exit_json(changed=after != before, ansible_facts={"redoubt_drained": after})


if __name__ == "__main__":
    main()
