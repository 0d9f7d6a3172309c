#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: look once what still runs. The action of the same name (role drain) looks until nothing does."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.in_flight import engine_work, gateway_work

DOCUMENTATION = r"""
module: requests_in_flight
short_description: Say which requests engines and the gateway of a machine still have
description:
  - Engines are asked for their metrics; the gateway's connections are counted in the kernel's tables.
  - Changes nothing.
options:
  engines:
    description: "Engines of this machine, as the plan lists them: name, address, port, metrics_path, request_metrics."
    type: list
    elements: dict
    default: []
  servers:
    description: Servers (host:port) that Nginx of this machine may be passing requests to.
    type: list
    elements: str
    default: []
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Look what still runs
  requests_in_flight:
    engines: "{{ deployment_plan.engines }}"
"""

RETURN = r"""
busy: {description: "One line for each engine or server that is not idle.", type: list, returned: always}
"""


def main() -> None:
    """Entry point."""
    spec = {
        "engines": {"type": "list", "elements": "dict", "default": []},
        "servers": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    busy = [text for text in map(engine_work, module.params["engines"]) if text]
    if module.params["servers"]:
        busy += gateway_work(module.params["servers"])
    module.exit_json(changed=False, busy=busy)


if __name__ == "__main__":
    main()
