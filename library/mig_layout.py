#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: GPUs divided by MIG as declared."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu.aside import Stays, active, aside
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.gpu.mig import User, container_users, differing, disturbed, process_users, using
from ansible.module_utils.probes import run

DOCUMENTATION = r"""
module: mig_layout
short_description: Divide GPUs by MIG as declared, never under somebody's work
description:
  - Asks nvidia-mig-parted whether the GPUs are as declared; if so, nothing is done.
  - If not, looks for containers and processes on the GPUs that are to change, or on all where the change resets all.
    Any is a refusal, unless O(drain) allows to stop engines, which the serve playbook brings back. Others are never
    stopped.
  - Stops the given services and containers, applies the layout, asks again, has the CDI specification written anew, and
    starts services and containers again whatever happened.
options:
  parts:
    description: "mig-parted's list, one {devices: [index], mig-enabled, mig-devices} for each GPU of the host."
    type: list
    elements: dict
    required: true
  drain: {description: Stop the engines that use these GPUs., type: bool, default: false}
  services:
    description: Units that hold GPUs open and may be stopped for the change.
    type: list
    elements: str
    default: []
  containers:
    description: Containers that hold GPUs open and may be stopped for the change, such as an exporter.
    type: list
    elements: str
    default: []
  timeout: {description: Seconds for the change., type: int, default: 480}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Divide the second GPU into seven
  mig_layout:
    parts: [{devices: [1], mig-enabled: true, mig-devices: {1g.10gb: 7}}]
"""

RETURN = r"""
changed_gpus:
  description: Indexes of the GPUs that were (or in check mode would be) divided anew.
  type: list
  returned: always
drained: {description: Containers that were stopped., type: list, returned: always}
"""

PARTED = "nvidia-mig-parted"
CONFIG = "redoubt"
STOP_SECONDS = 150  # more than an engine's streams may take to end


class Refused(Exception):
    """The layout cannot be; the text is for the operator."""


def output(command: list[str], seconds: int = 60) -> str:
    """What a command prints; raises Refused where it fails, for who cannot be asked may be busy."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError:
        return ""
    except subprocess.TimeoutExpired:
        raise Refused(f"'{' '.join(command)}' did not end within {seconds} s") from None
    if done.returncode:
        raise Refused(
            f"'{' '.join(command)}' ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-800:]}"
        )
    return done.stdout


def users(gpus: list[dict[str, Any]]) -> list[User]:
    """Everybody on the host who uses a GPU."""
    ids = output(["docker", "ps", "--quiet"]).split()
    inspected = json.loads(output(["docker", "inspect", *ids])) if ids else []
    query = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name", "--format=csv,noheader"]
    return [*container_users(inspected, gpus), *process_users(output(query), gpus)]


class Layout:
    """A layout in a file of its own, as mig-parted wants it."""

    def __init__(self, parts: list[dict[str, Any]], folder: str, name: str) -> None:
        self.file = os.path.join(folder, name)
        with open(self.file, "w", encoding="utf-8") as stream:
            json.dump({"version": "v1", "mig-configs": {CONFIG: parts}}, stream)

    def run(self, verb: str, seconds: int) -> tuple[int, str]:
        """Exit status and words of mig-parted."""
        status, said = run([PARTED, verb, "-f", self.file, "-c", CONFIG], seconds)
        return int(status), str(said)


def drain(busy: list[User], allowed: bool, which: str) -> list[str]:
    """Stop the engines among the users; returns their names. Raises Refused where somebody else is there.

    which: the GPUs, for the operator.

    A process in an engine's container is in the list of processes too, so processes are judged after the engines ended.
    """
    engines = [user.name for user in busy if user.engine]
    others = [user.name for user in busy if not user.engine and not (engines and user.name.startswith("process "))]
    if others:
        raise Refused(
            f"{which} is in use by {', '.join(others)}, and MIG cannot change under it. Nothing was changed."
            " Stop it, then run again."
        )
    if engines and not allowed:
        raise Refused(
            f"{which} is in use by {', '.join(engines)}. Nothing was changed. Drain the host (playbook drain,"
            " afterwards return), which lets requests end; or set nvidia_mig_drain: true for this run, which stops"
            " these engines at once (the serve playbook brings them back)."
        )
    if engines:
        # The long form of -t has another name in newer clients.
        output(["docker", "stop", "-t", str(STOP_SECONDS), *engines], STOP_SECONDS + 60)
    return engines


def text_of(indexes: list[int]) -> str:
    """GPUs for a message."""
    return f"GPU {', '.join(str(index) for index in indexes)}"


def change(
    params: dict[str, Any], declared: Layout, missing: Layout, gpus: list[dict[str, Any]], indexes: list[int]
) -> list[str]:
    """Free the GPUs and divide them; returns the containers that were stopped. Raises Refused.

    declared: the layout of all GPUs; missing: of those at `indexes`, which are not as declared. Only this is applied,
    because mig-parted first clears every GPU that it is given.
    """
    needed = disturbed(gpus, params["parts"], indexes)
    which = text_of(needed)
    if needed != indexes:
        which = f"{which} (switching MIG on {text_of(indexes)} resets every GPU of this host)"
    services = active(params["services"], run)
    everybody = users(gpus)
    helpers = [user.name for user in everybody if user.name in params["containers"]]
    busy = [user for user in using(everybody, needed) if user.name not in helpers]
    drained = drain(busy, params["drain"], which)
    try:
        with aside(services, helpers, run):
            left = using(users(gpus), needed)
            if left:
                raise Refused(
                    f"{which} is still in use by {', '.join(user.name for user in left)}: stop it, then run again"
                )
            status, said = missing.run("apply", params["timeout"])
            if status:
                raise Refused(f"{PARTED} apply ended with {status}: {said[-1500:]}")
            status, said = declared.run("assert", 60)
            if status:
                raise Refused(f"{PARTED} applied the layout, yet the GPUs are not as declared: {said[-800:]}")
    except Stays as error:
        raise Refused(str(error)) from error
    return drained


def work(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the module's documentation says and return its result. Raises Refused."""
    every = [index for part in params["parts"] for index in part["devices"]]
    with tempfile.TemporaryDirectory(prefix="redoubt-mig-") as folder:
        declared = Layout(params["parts"], folder, "mig.json")
        status, _ = declared.run("assert", 60)
        if status == 127 and check:
            return {"changed": True, "changed_gpus": every, "drained": []}
        if status == 127:
            raise Refused(f"{PARTED} is not installed: run the role nvidia_mig, which installs it")
        if status == 0:
            return {"changed": False, "changed_gpus": [], "drained": []}
        gpus = gather(Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}", 60))["gpus"]
        # What mig-parted says counts; that no difference is seen here only means that all of its GPUs may change.
        indexes = differing(gpus, params["parts"]) or every
        missing = Layout([part for part in params["parts"] if part["devices"][0] in indexes], folder, "differing.json")
        drained = [] if check else change(params, declared, missing, gpus, indexes)
    return {"changed": True, "changed_gpus": indexes, "drained": drained}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "parts": {"type": "list", "elements": "dict", "required": True},
            "drain": {"type": "bool", "default": False},
            "services": {"type": "list", "elements": "str", "default": []},
            "containers": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 480},
        },
        supports_check_mode=True,
    )
    try:
        result = work(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=f"MIG: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
