#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: which running containers may fill the disk with their log."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: container_log_limits
short_description: Find running containers whose log has no limit
description:
  - A log limit in daemon.json holds for containers that are created after it. This looks at what each running
    container really has. Changes nothing. A host without Docker has no containers.
options:
  timeout: {description: Seconds that the engine may take to answer., type: int, default: 60}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Look at the log limits of the running containers
  container_log_limits:
  register: __role_log_limits
"""

RETURN = r"""
containers: {description: Number of running containers., type: int, returned: always}
unlimited: {description: "Those without a limit: name, driver, why.", type: list, returned: always}
"""


class Refused(Exception):
    """The engine gives no answer; the text is for the operator."""


def problem(log_config: dict[str, Any]) -> str | None:
    """Why a container's HostConfig.LogConfig does not limit its log; None when it does.

    Only the drivers that write files of their own are judged: `local` always rotates, `json-file` only when told,
    and what goes to journald, syslog or a network is limited there.
    """
    if log_config.get("Type") != "json-file":
        return None
    options = log_config.get("Config") or {}
    size = str(options.get("max-size", "")).strip()
    if not size or size.startswith("-"):
        return "json-file without max-size never rotates"
    return None


def unlimited(inspected: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The offenders in the output of `docker inspect`, by name."""
    rows = []
    for container in inspected:
        log_config = container.get("HostConfig", {}).get("LogConfig", {})
        why = problem(log_config)
        if why:
            name = str(container.get("Name", "")).lstrip("/")
            rows.append({"name": name, "driver": str(log_config.get("Type")), "why": why})
    return sorted(rows, key=lambda row: row["name"])


def _docker(words: list[str], timeout: int) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"'docker {words[0]}' did not answer within {timeout} s: is the engine hanging?") from None
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()


def inspect(timeout: int) -> list[dict[str, Any]]:
    """What `docker inspect` says of every running container. Raises Refused."""
    if shutil.which("docker") is None:
        return []
    status, output, errors = _docker(["ps", "--quiet", "--no-trunc"], timeout)
    if status:
        raise Refused(f"the engine does not list its containers: {errors}")
    names = output.split()
    if not names:
        return []
    # A container may end between the two questions: inspect then ends with 1 but prints the others.
    _, output, errors = _docker(["inspect", "--type", "container", *names], timeout)
    try:
        rows: list[dict[str, Any]] = json.loads(output)
    except ValueError:
        raise Refused(f"the engine does not describe its containers: {errors}") from None
    return rows


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 60}}, supports_check_mode=True)
    try:
        inspected = inspect(module.params["timeout"])
    except Refused as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, containers=len(inspected), unlimited=unlimited(inspected))


if __name__ == "__main__":
    main()
