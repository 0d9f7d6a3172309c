#!/usr/bin/python
# Copyright: Redoubt founders
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the model files of a host, each proved by size and SHA-256."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import Settings, absent, planned, present, verified
from ansible.module_utils.artifacts.sources import CONTROLLER, make_source
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.run_lock import PATIENCE

DOCUMENTATION = r"""
module: weights
short_description: Bring, prove or remove the files of models
description:
  - Copies the files that a manifest lists from a folder or an HTTP(S) address, hashing them on the way, several at
    once; publishes a revision by one rename, read-only, so that a half-copied model is never visible.
  - Remembers size, times and inode of every proved file, so that the next run only looks at those.
  - A run that was killed is made up for by the next one, which takes over the files that had arrived whole.
options:
  models:
    description: Models (name, revision, files as a list of path, size and sha256). For C(absent), name is enough.
    type: list
    elements: dict
    required: true
  source:
    description:
      - Folder that holds one folder per model, named as the model. C(file:///folder) on this host, or C(https://…).
      - C(controller) means that the files of C(planned) were copied from the control host to where it said.
    type: str
  state:
    description:
      - C(present) brings what is missing or wrong. C(verified) changes nothing and fails on a fault.
      - C(planned) returns which files C(present) would need. C(absent) removes.
    type: str
    choices: [present, verified, planned, absent]
    default: present
  deep: {description: With C(verified), hash every byte again, type: bool, default: false}
  strict: {description: With C(verified), fail on a fault rather than only return it, type: bool, default: true}
  directory: {description: Where models are published, type: path, default: /srv/redoubt/models}
  state_dir: {description: Where stamps are kept, type: path, default: /var/lib/redoubt/weights}
  progress_file:
    {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/weights.json}
  keep_revisions: {description: Revisions kept per model with the wanted one, type: int, default: 2}
  allow_pickle:
    {description: Models or model/path whose pickle files may come, type: list, elements: str, default: []}
  reserve_bytes: {description: Bytes that must stay free, type: int, default: 0}
  workers: {description: Files worked on at once; 0 for as many as there are cores up to 4, type: int, default: 0}
  ca_file: {description: Certificate authority for https; the system's when empty, type: str, default: ""}
  timeout: {description: Seconds without an answer from a server, type: int, default: 60}
  lock_timeout: {description: Seconds to wait for another run on this host to end, type: int, default: 900}
author: Redoubt founders
"""

EXAMPLES = r"""
- name: Bring the models from a mounted medium
  weights:
    models: "{{ weights_models }}"
    source: file:///media/redoubt/models

- name: Hash every byte again
  weights:
    models: "{{ weights_models }}"
    state: verified
    deep: true
"""

RETURN = r"""
models:
  description:
    - Per model. For C(present) name, revision, path, state (present, published, mended, adopted), bytes_copied,
      bytes_reused, bytes_hashed, fetched, removed, pruned.
    - For C(verified) name, revision, path, ok, files, bytes_hashed, faults (path, kind, expected, found, text).
  type: list
  returned: present, verified
ok: {description: Whether every model is as its manifest says, type: bool, returned: verified}
pending: {description: Whether C(present) would do anything, type: bool, returned: planned}
needed: {description: "Files to bring (model, path, size, folder)", type: list, returned: planned}
removed: {description: Folders removed, type: list, returned: absent}
bytes: {description: Bytes copied, type: int, returned: present}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the parameters say; returns the module's result, with ``failed`` in it for a fault. Raises Refusal."""
    store = Store(Path(params["directory"]), Path(params["state_dir"]), params["lock_timeout"])
    settings = Settings(
        workers=params["workers"],
        keep_revisions=params["keep_revisions"],
        reserve_bytes=params["reserve_bytes"],
        progress_file=Path(params["progress_file"]),
        check=check,
    )
    if params["state"] == "absent":
        wanted = [(str(item["name"]), item.get("revision")) for item in params["models"]]
        removed = absent(store, wanted, check)
        return {"changed": bool(removed), "removed": removed}
    models = parse_models(params["models"], params["allow_pickle"])
    if params["state"] == "planned":
        pending, needed = planned(store, models, settings)
        return {"changed": False, "pending": pending, "needed": needed}
    if params["state"] == "verified":
        verdicts = verified(store, models, settings, params["deep"])
        texts = [fault["text"] for verdict in verdicts for fault in verdict["faults"]]
        result: dict[str, Any] = {"changed": False, "ok": not texts, "models": verdicts}
        if texts and params["strict"]:
            result["failed"] = True
            result["msg"] = str(Refusal([*texts, "Run site.yml to fetch these files again"]))
        return result
    source = None
    if params["source"] != CONTROLLER:
        source = make_source(params["source"] or "", "weights_source", params["ca_file"], params["timeout"])
    changed, outcomes = present(store, models, source, settings)
    lines = [f"{item.name} {item.revision[:12]}: {item.state}" for item in outcomes if item.state != "present"]
    lines += [f"{path}: removed" for item in outcomes for path in item.pruned]
    return {
        "changed": changed,
        "models": [vars(item) for item in outcomes],
        "bytes": sum(item.bytes_copied for item in outcomes),
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)},
    }


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "models": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "str"},
            "state": {"choices": ["present", "verified", "planned", "absent"], "default": "present"},
            "deep": {"type": "bool", "default": False},
            "strict": {"type": "bool", "default": True},
            "directory": {"type": "path", "default": "/srv/redoubt/models"},
            "state_dir": {"type": "path", "default": "/var/lib/redoubt/weights"},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/weights.json"},
            "keep_revisions": {"type": "int", "default": 2},
            "allow_pickle": {"type": "list", "elements": "str", "default": []},
            "reserve_bytes": {"type": "int", "default": 0},
            "workers": {"type": "int", "default": 0},
            "ca_file": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
            "lock_timeout": {"type": "int", "default": PATIENCE},
        },
        required_if=[("state", "present", ("source",))],
        supports_check_mode=True,
    )
    answer(module, run, module.params["directory"])


if __name__ == "__main__":
    main()
