#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: a model made of another one, by a one-shot container without a network."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import answer
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.conversion.job import parse_job
from ansible.module_utils.conversion.transaction import Place, convert
from ansible.module_utils.run_lock import PATIENCE, only_run

DOCUMENTATION = r"""
module: conversion
short_description: Make a model of another one, with a manifest of what went in and came out
description:
  - Does nothing when the same conversion (input files, image, programs, command) was done before and its result is as
    it was.
  - Else hashes the whole input, starts one container of the image that the lock names - without a network, its input
    read-only, its output in a private folder on the models' file system -, waits for its end and keeps its words.
  - What it wrote is hashed and judged (headers of safetensors, GGUF and ONNX files), gets a C(conversion.json) beside
    it and becomes a revision of the store by one rename; the revision is made of that file.
  - A job that fails or is killed publishes nothing; its folder and its container are removed.
options:
  job: {description: The conversion as the plan has it, type: dict, required: true}
  compose: {description: Rendered compose file; C(@image@) is filled in by the module, type: str, required: true}
  programs: {description: Text of each program that the job reads, by file name, type: dict, required: true}
  directory: {description: Where models are published, type: path, default: /srv/redoubt/models}
  weights_state_dir: {description: Where the module weights keeps stamps, type: path, default: /var/lib/redoubt/weights}
  state_dir: {description: Where records of conversions are kept, type: path, default: /var/lib/redoubt/conversions}
  log_dir: {description: Where the words of jobs are kept, type: path, default: /var/log/redoubt/conversions}
  images_state_file: {description: Ids of proved images, type: path, default: /var/lib/redoubt/images.json}
  progress_file:
    {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/conversion.json}
  user: {description: User and group of the container as UID:GID, type: str, default: "65534:65534"}
  reserve_bytes: {description: Bytes that must stay free; a job that takes them is stopped, type: int, default: 0}
  timeout: {description: Seconds that the job may take, type: int, default: 86400}
  allow_pickle:
    {description: Models or model/path whose pickle files may be a result, type: list, elements: str, default: []}
  allow_code:
    {description: Models or model/path whose Python files may be a result, type: list, elements: str, default: []}
  lock_timeout: {description: Seconds to wait for another run on this host to end, type: int, default: 900}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Convert a model
  conversion:
    job: "{{ deployment_plan.conversions[0] }}"
    compose: "{{ lookup('ansible.builtin.template', 'compose.yml.j2') }}"
    programs: {common.py: "{{ lookup('ansible.builtin.file', 'common.py') }}"}
"""

RETURN = r"""
state: {description: present or converted, type: str, returned: always}
why: {description: What was wrong with an earlier result, type: str, returned: converted}
entry:
  description: The result's lock entry (revision, license, total_size, files)
  type: dict
  returned: not in check mode
path: {description: Folder of the result, type: str, returned: not in check mode}
record: {description: "File with manifest, begin, end and log", type: str, returned: not in check mode}
log: {description: File with the job's words, type: str, returned: not in check mode}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the parameters say; returns the module's result. Raises Refusal, Busy, OSError."""
    job = parse_job(params["job"], params["programs"], params["compose"])
    user, group = (int(word) for word in params["user"].split(":"))
    state = Path(params["state_dir"])
    place = Place(
        store=Store(Path(params["directory"]), Path(params["weights_state_dir"]), params["lock_timeout"]),
        state=state,
        logs=Path(params["log_dir"]),
        progress=Path(params["progress_file"]),
        images_file=Path(params["images_state_file"]),
        reserve_bytes=params["reserve_bytes"],
        timeout=params["timeout"],
        user=(user, group),
        allow_pickle=params["allow_pickle"],
        allow_code=params["allow_code"],
    )
    result: dict[str, Any]
    if check:
        result = convert(place, job, check=True)
        return result
    state.mkdir(mode=0o755, parents=True, exist_ok=True)
    with only_run(state / ".lock", "a conversion", params["lock_timeout"]):
        result = convert(place, job, check=False)
        return result


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "job": {"type": "dict", "required": True},
            "compose": {"type": "str", "required": True},
            "programs": {"type": "dict", "required": True},
            "directory": {"type": "path", "default": "/srv/redoubt/models"},
            "weights_state_dir": {"type": "path", "default": "/var/lib/redoubt/weights"},
            "state_dir": {"type": "path", "default": "/var/lib/redoubt/conversions"},
            "log_dir": {"type": "path", "default": "/var/log/redoubt/conversions"},
            "images_state_file": {"type": "path", "default": "/var/lib/redoubt/images.json"},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/conversion.json"},
            "user": {"type": "str", "default": "65534:65534"},
            "reserve_bytes": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 86400},
            "allow_pickle": {"type": "list", "elements": "str", "default": []},
            "allow_code": {"type": "list", "elements": "str", "default": []},
            "lock_timeout": {"type": "int", "default": PATIENCE},
        },
        supports_check_mode=True,
    )
    # A run that is ended from outside ends its container too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, lambda signum, _: module.fail_json(msg=f"ended by signal {signum}; nothing was published")
        )
    answer(module, run, module.params["directory"])


if __name__ == "__main__":
    main()
