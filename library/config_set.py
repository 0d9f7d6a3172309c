#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: install the configuration of one service as a transaction."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.config_transaction import Refused, install
from ansible.module_utils.run_lock import PATIENCE, Busy

DOCUMENTATION = r"""
module: config_set
short_description: Install all files of one service, checked, applied and proved, or put the old ones back
description:
  - Compares every file; stages the new set in a private tree; runs the service's own checkers on it; swaps;
    applies (reload or restart); proves by probes; restores and re-applies the previous set when that fails.
  - What the running service has loaded is remembered as a digest. A run that died between the swap and the
    apply is made up for by the next one, which a notified handler cannot do.
options:
  name: {description: Name of the set; one stamp per name., type: str, required: true}
  directories:
    {description: "Directories (path, mode, owner, group), made in order.", type: list, elements: dict}
  files: {description: "Files (path, content, mode, owner, group).", type: list, elements: dict}
  secret_files: {description: "As files, but never shown in diffs or logs.", type: list, elements: dict}
  links: {description: "Symbolic links (path, target).", type: list, elements: dict}
  absent: {description: Paths that shall not exist., type: list, elements: path}
  validate:
    description: Commands run before the swap; {staged} in a word is the root of the staged tree.
    type: list
    elements: list
  units: {description: systemd units to enable at boot., type: list, elements: str}
  apply: {description: Commands that make the service use the files., type: list, elements: list}
  triggers: {description: Texts whose change also forces an apply., type: list, elements: str}
  probe:
    description: Proofs, each a unit, tcp, http (with status, headers, ca, server_name…) or command.
    type: list
    elements: dict
  timeout: {description: Seconds that the probes may take after an apply., type: int, default: 60}
  command_timeout: {description: Seconds that one command may take., type: int, default: 300}
  lock_timeout: {description: Seconds to wait for another run on this set to end., type: int, default: 900}
  settle: {description: Seconds that units and containers must stay up after an apply., type: float, default: 2}
  state_dir: {description: Where stamps live., type: path, default: /var/lib/redoubt/config_sets}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Install the gateway configuration
  config_set:
    name: gateway
    files:
      - {path: /etc/nginx/nginx.conf, content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"}
    validate: [[nginx, -t, -c, "{staged}/etc/nginx/nginx.conf"]]
    units: [nginx.service]
    apply: [[systemctl, reload-or-restart, nginx.service]]
    probe: [{unit: nginx.service}, {tcp: "127.0.0.1:443"}]
"""

RETURN = r"""
applied: {description: Whether the service was reloaded or restarted., type: bool, returned: always}
restored: {description: Whether the previous files were put back., type: bool, returned: always}
changed_files: {description: Paths that differed., type: list, returned: always}
reason: {description: Why the set was applied., type: str, returned: always}
"""


def _owned(mode: str, **more: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": {"type": "path", "required": True},
        "mode": {"type": "str", "default": mode},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        **more,
    }


def argument_spec() -> dict[str, Any]:
    """The module's arguments in Ansible's form."""
    dicts: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
    commands: dict[str, Any] = {"type": "list", "elements": "list", "default": []}
    content = {"type": "str", "required": True}
    return {
        "name": {"type": "str", "required": True},
        "directories": {**dicts, "options": _owned("0755")},
        "files": {**dicts, "options": _owned("0644", content=content)},
        "secret_files": {**dicts, "options": _owned("0600", content={**content, "no_log": True})},
        "links": {
            **dicts,
            "options": {
                "path": {"type": "path", "required": True},
                "target": {"type": "str", "required": True},
            },
        },
        "absent": {"type": "list", "elements": "path", "default": []},
        "validate": commands,
        "units": {"type": "list", "elements": "str", "default": []},
        "apply": commands,
        "triggers": {"type": "list", "elements": "str", "default": []},
        "probe": {
            **dicts,
            "options": {
                "unit": {"type": "str"},
                "containers": {"type": "list", "elements": "str"},
                "tcp": {"type": "str"},
                "http": {"type": "str"},
                "command": {"type": "list", "elements": "str"},
                "status": {"type": "list", "elements": "int"},
                "headers": {"type": "dict"},
                "ca": {"type": "path"},
                "server_name": {"type": "str"},
                "verify": {"type": "bool", "default": True},
                "connect_to": {"type": "str"},
            },
            "mutually_exclusive": [["unit", "containers", "tcp", "http", "command"]],
            "required_one_of": [["unit", "containers", "tcp", "http", "command"]],
        },
        "timeout": {"type": "int", "default": 60},
        "command_timeout": {"type": "int", "default": 300},
        "lock_timeout": {"type": "int", "default": PATIENCE},
        "settle": {"type": "float", "default": 2.0},
        "state_dir": {"type": "path", "default": "/var/lib/redoubt/config_sets"},
    }


class QuietModule(AnsibleModule):  # type: ignore[misc]  # Ansible publishes no types
    """Writes no contents to the host's system log.

    Ansible logs each call with its arguments and blots out secrets there; but it writes lists in Python's notation,
    where a text of several lines no longer looks like the secret, so whole files of keys would be in the journal.
    """

    def _log_invocation(self) -> None:
        self.log(f"Invoked for {self.params.get('name')}")


def main() -> None:
    """Entry point."""
    module = QuietModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = install(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=f"{module.params['name']}: {error}", restored=error.restored)
    except Busy as error:
        module.fail_json(msg=str(error), lock_holder=error.holder, restored=False)
    except KeyError as error:
        module.fail_json(msg=f"{module.params['name']}: no such user or group on this host: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
