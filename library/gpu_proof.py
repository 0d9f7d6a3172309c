#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: prove that containers see exactly the GPUs that they are given."""

from __future__ import annotations

import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.proof import compare, listing

DOCUMENTATION = r"""
module: gpu_proof
short_description: Prove that a container sees exactly the GPUs that it is given
description:
  - Starts a container for each item, from an image that is on the host already, gives it the item's devices by CDI and
    compares what nvidia-smi lists inside with what it lists on the host. The container is removed again.
  - Needs no network and pulls nothing; changes nothing, so that it also runs in check mode where the image is there.
options:
  containers:
    description: "Each {name, image, devices}; devices as CDI names them (index, UUID, GPU:NUMBER)."
    type: list
    elements: dict
    required: true
  timeout: {description: Seconds for one container., type: int, default: 120}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Prove that the engine's container sees its GPUs
  gpu_proof:
    containers: [{name: large, image: "sha256:…", devices: ["0", "1"]}]
"""

RETURN = r"""
proved: {description: Names of the items, with the number of devices seen., type: dict, returned: success}
"""

REMEDY = (
    "Compare 'nvidia-smi -L' on the host with 'nvidia-ctk cdi list'; a GPU that the host does not list either has left"
    " the bus or lost its driver: read 'journalctl -k | grep -i nvrm'."
)


class Unproved(Exception):
    """A container does not see what it should; the text is for the operator."""


def smi(command: list[str], seconds: int) -> str:
    """What a command lists; raises Unproved with its words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError:
        raise Unproved(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unproved(f"'{' '.join(command)}' did not end within {seconds} s") from None
    # A GPU that fell off the bus makes nvidia-smi fail, yet it lists the others: those are compared.
    if done.returncode and "UUID:" not in done.stdout:
        said = (done.stderr + done.stdout).strip()[-1500:]
        raise Unproved(f"'{' '.join(command)}' ended with {done.returncode}: {said}")
    return done.stdout


def command(item: dict[str, Any]) -> list[str]:
    """The container that lists the devices of an item."""
    devices = [word for device in item["devices"] for word in ("--device", f"nvidia.com/gpu={device}")]
    isolated = ["--rm", "--pull=never", "--network=none", "--cap-drop=ALL", "--log-driver=none"]
    return ["docker", "run", *isolated, *devices, "--entrypoint=nvidia-smi", item["image"], "-L"]


def main() -> None:
    """Entry point."""
    row = {
        "name": {"type": "str", "required": True},
        "image": {"type": "str", "required": True},
        "devices": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "containers": {"type": "list", "elements": "dict", "required": True, "options": row},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    proved: dict[str, int] = {}
    name = "the host"
    try:
        host = listing(smi(["nvidia-smi", "-L"], module.params["timeout"]))
        for item in module.params["containers"]:
            name = f"the proof container of {item['name']} (image {item['image']})"
            wrong = compare(host, listing(smi(command(item), module.params["timeout"])), item["devices"])
            if wrong:
                raise Unproved(wrong)
            proved[item["name"]] = len(item["devices"])
    except Unproved as error:
        module.fail_json(msg=f"GPUs in {name}: {error}. {REMEDY}")
    module.exit_json(changed=False, proved=proved)


if __name__ == "__main__":
    main()
