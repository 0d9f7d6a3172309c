#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the lock entry of a model, from a hub or from a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.artifacts.locking import LEFT_OUT, Choice, HubLock, lock_folder
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.fetch.http import Network

DOCUMENTATION = r"""
module: weights_lock
short_description: Make the lock entry of a model
description:
  - Lists the files of a model with size and SHA-256. From a hub, large files have the digest that the hub says (their
    bytes are proved against it when they are fetched); small ones are read and proved against the commit.
  - From a folder every file is hashed.
  - Changes nothing.
options:
  folder: {description: Folder of the model's files; or O(url) and O(repo), type: path}
  url: {description: Address of a hub, type: str, default: ""}
  repo: {description: Name of the model on the hub, type: str, default: ""}
  revision:
    description:
      - Commit; from a hub also a branch or tag, of which the commit of now is taken. For a folder without a commit, a
        revision is made from the files.
    type: str
    default: ""
  include: {description: Patterns of paths to take; all when empty, type: list, elements: str, default: []}
  exclude:
    description: Patterns of paths to leave out; by default what no engine here needs, and pickles.
    type: list
    elements: str
  token: {description: Token for the hub, type: str, default: ""}
  ca_file: {description: Certificate authority for https; the system's when empty, type: str, default: ""}
  proxy: {description: Proxy; what the environment says when empty, type: str, default: ""}
  no_proxy: {description: Hosts without a proxy, type: str, default: ""}
  timeout: {description: Seconds without an answer, type: int, default: 60}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Lock what a folder holds
  weights_lock:
    folder: /media/redoubt/models/tiny
"""

RETURN = r"""
entry: {description: "revision, total_size, files; from a hub also repo and license", type: dict, returned: always}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the module's result. Raises Refusal."""
    exclude = LEFT_OUT if params["exclude"] is None else params["exclude"]
    choice = Choice(params["include"], exclude)
    if params["folder"]:
        entry = lock_folder(Path(params["folder"]), params["revision"], choice, os.cpu_count() or 1)
        return {"changed": False, "entry": entry}
    if not (params["url"] and params["repo"]):
        raise Refusal("give a folder, or the url of a hub and the model's repo there")
    network = Network(params["ca_file"], params["timeout"], params["proxy"], params["no_proxy"])
    hub = HubLock(params["url"], params["repo"], network, params["token"])
    return {"changed": False, "entry": hub.lock(params["revision"] or "main", choice)}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path"},
            "url": {"type": "str", "default": ""},
            "repo": {"type": "str", "default": ""},
            "revision": {"type": "str", "default": ""},
            "include": {"type": "list", "elements": "str", "default": []},
            "exclude": {"type": "list", "elements": "str"},
            "token": {"type": "str", "default": "", "no_log": True},
            "ca_file": {"type": "str", "default": ""},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    answer(module, run, module.params["folder"] or "")


if __name__ == "__main__":
    main()
