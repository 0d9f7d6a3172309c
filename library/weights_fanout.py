#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: let the hosts of a run serve proved files to each other, over TLS and only while it runs."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.fanout import serving

DOCUMENTATION = r"""
module: weights_fanout
short_description: Serve proved files of models to the other hosts of a run
description:
  - C(identity) makes a key and a certificate for this run and returns the certificate; the key stays on the host.
  - C(serving) starts an Nginx of its own that gives what the store has proved, to the addresses of the peers and only
    to those that show one of their certificates. It ends by itself after O(lifetime).
  - C(absent) ends it and removes what belonged to it.
  - Nothing of this outlives the run, so none of it counts as a change.
options:
  state: {description: What to do, type: str, choices: [identity, serving, absent], required: true}
  address: {description: Private address of this host, type: str}
  port: {description: Port to listen on, type: int, default: 18443}
  peers: {description: "The hosts as {address: certificate}, with this one", type: dict, default: {}}
  directory: {description: Where models are published, type: path, default: /srv/redoubt/models}
  folder: {description: Private folder of the run, type: path, default: /run/redoubt/fanout}
  lifetime: {description: Seconds after which nothing listens any more whatever happens, type: int, default: 14400}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Make a certificate for this run
  weights_fanout:
    state: identity
    address: 10.0.0.11
  register: identity
"""

RETURN = r"""
lacking: {description: Programs that must be installed first, type: list, returned: identity}
certificate: {description: The certificate in PEM; empty when programs are lacking, type: str, returned: identity}
"""


def work(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the module's documentation says. Raises Refusal, OSError."""
    folder = Path(params["folder"])
    if check:
        return {"changed": False, "lacking": [], "certificate": ""}
    if params["state"] == "absent":
        serving.stop(folder)
        return {"changed": False}
    if ipaddress.ip_address(params["address"]).is_loopback:
        raise Refusal(
            f"redoubt_private_address is {params['address']}, where no other host reaches this one: set it to "
            "the host's address on the private network, or weights_fanout: false"
        )
    if params["state"] == "identity":
        serving.stop(folder)  # what a run left that was killed
        lacking = serving.lacking()
        certificate = "" if lacking else serving.make_identity(folder, params["address"])
        return {"changed": False, "lacking": lacking, "certificate": certificate}
    blobs = Path(params["directory"]) / ".blobs"
    serving.prepare(folder, blobs, params["address"], params["port"], params["peers"])
    serving.start(folder, params["lifetime"])
    return {"changed": False}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["identity", "serving", "absent"], "required": True},
            "address": {"type": "str"},
            "port": {"type": "int", "default": 18443},
            "peers": {"type": "dict", "default": {}},
            "directory": {"type": "path", "default": "/srv/redoubt/models"},
            "folder": {"type": "path", "default": "/run/redoubt/fanout"},
            "lifetime": {"type": "int", "default": 14400},
        },
        required_if=[("state", "identity", ["address"]), ("state", "serving", ["address", "peers"])],
        supports_check_mode=True,
    )
    answer(module, work, module.params["folder"])


if __name__ == "__main__":
    main()
