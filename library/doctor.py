#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: carry out the doctor's checks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.checks import KINDS, examine
from ansible.module_utils.config_files import write_atomically
from ansible.module_utils.gpu_checks import KIND, gpu_answers

DOCUMENTATION = r"""
module: doctor
short_description: Carry out a list of checks and report each
description:
  - Changes nothing that it looks at. What it reads of weights it notes as proofs, as a run does, but not in check mode.
  - What a check finds does not fail the task; the verdict is the caller's.
options:
  checks:
    description: "Checks, each {id, kind, remedy, ...}. Those with C(last) wait for the others."
    type: list
    elements: dict
    required: true
  api_key: {description: Key for checks that go through the gateway., type: str}
  report: {description: File on this machine that gets the report as JSON., type: path}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Look at Nginx
  doctor:
    checks: [{id: unit.nginx, kind: unit, unit: nginx.service, remedy: "Run the gateway play."}]
"""

RETURN = r"""
checks: {description: "The answers, {id, ok, detail, remedy, seconds}.", type: list, returned: always}
ok: {description: Whether all are good., type: bool, returned: always}
"""


def answer(check: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to one check; that of the GPUs has several."""
    return gpu_answers(check) if check["kind"] == KIND else [examine(check)]


def carry_out(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers in the order of the checks. Those with ``last`` judge what the others write down, so they wait."""
    answers: dict[int, list[dict[str, Any]]] = {}
    # Most checks wait for somebody else (a service, a disk), so threads are enough.
    with ThreadPoolExecutor(max_workers=8) as pool:
        for last in (False, True):
            turn = [number for number, check in enumerate(checks) if check.get("last", False) is last]
            answers.update(zip(turn, pool.map(answer, [checks[number] for number in turn])))
    return [row for number in sorted(answers) for row in answers[number]]


def main() -> None:
    """Entry point."""
    spec: dict[str, Any] = {
        "checks": {"type": "list", "elements": "dict", "required": True},
        "api_key": {"type": "str", "no_log": True},
        "report": {"type": "path"},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    checks = module.params["checks"]
    unknown = sorted({c.get("kind", "") for c in checks} - {*KINDS, KIND})
    if unknown:
        module.fail_json(
            msg=f"unknown kinds of check: {', '.join(unknown)}; known: {', '.join(sorted({*KINDS, KIND}))}"
        )
    answers = carry_out([{**c, "api_key": module.params["api_key"], "check_mode": module.check_mode} for c in checks])
    document = {"ok": all(a["ok"] for a in answers), "checks": answers}
    if module.params["report"] and not module.check_mode:
        write_atomically(module.params["report"], json.dumps(document, indent=2).encode(), 0o644, 0, 0)
    module.exit_json(changed=False, **document)


if __name__ == "__main__":
    main()
