#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: put a numbered release of engine containers into service, or bring an earlier one back."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_docker import Docker, DockerError
from ansible.module_utils.release_gate import GateOptions
from ansible.module_utils.release_run import Outcome, Refused, Transaction, drift, host_problems, running_containers
from ansible.module_utils.release_spec import SpecError, Wanted, wanted_release
from ansible.module_utils.release_store import Store
from ansible.module_utils.run_lock import PATIENCE, Busy

DOCUMENTATION = r"""
module: release
short_description: Put a numbered, immutable release of engine containers into service, or stop it
description:
  - Compares the wish with the release in service. When they differ, writes the next release beside it, has Compose
    check it, starts it, and waits until every engine has completed a real prompt; then moves the link C(current).
  - On failure the release before is brought back and proved, and the task is red with the engine's last lines.
  - When nothing differs, the containers are compared with the release and repaired where they are not as it says.
options:
  state:
    description: Whether to make a release as described, to go back to an earlier one, or to stop the containers.
    choices: [present, rolled_back, stopped]
    default: present
    type: str
  number: {description: "The release to go back to; 0 is the one before the current.", type: int, default: 0}
  engines: {description: "The engines, as the plan lists them.", type: list, elements: dict, default: []}
  compose:
    description: Rendered compose file; @release:CONTAINER@ and @digest:CONTAINER@ are filled in by the module.
    type: str
    default: ""
  secret_environment:
    {description: "Secret environment variables by model name, written to the 0600 environment file.", type: dict}
  project: {description: Compose project name., type: str, default: redoubt-inference}
  root: {description: Where releases live., type: path, default: /opt/redoubt}
  state_dir: {description: Where proofs are remembered., type: path, default: /var/lib/redoubt}
  keep: {description: How many releases to keep., type: int, default: 5}
  created_from: {description: "Free facts for the manifest, such as the play.", type: dict, default: {}}
  prompt: {description: What the proof asks., type: str, default: The capital of France is}
  completion_timeout: {description: Seconds that the proof may take., type: int, default: 120}
  crash_limit: {description: How many times an engine may end before it counts as crash-looping., type: int, default: 2}
  lock_timeout: {description: Seconds to wait for another run on this host to end., type: int, default: 900}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Put the release into service
  release:
    engines: "{{ inference_engines }}"
    compose: "{{ lookup('ansible.builtin.template', 'compose.yml.j2') }}"

- name: Stop the engines; the next run with C(present) starts and proves them again
  release:
    state: stopped

- name: Go back to the release before
  release:
    state: rolled_back
"""

RETURN = r"""
action: {description: "unchanged, released, repaired, rolled_back or stopped.", type: str, returned: always}
number: {description: The release in service., type: int, returned: always}
reasons: {description: What had to be repaired., type: list, returned: always}
proofs: {description: "For each engine: text, tokens, seconds and ready_after.", type: list, returned: when proved}
pruned: {description: Releases that were removed., type: list, returned: always}
"""


def argument_spec() -> dict[str, Any]:
    """The module's arguments in Ansible's form."""
    return {
        "state": {"type": "str", "choices": ["present", "rolled_back", "stopped"], "default": "present"},
        "number": {"type": "int", "default": 0},
        "engines": {"type": "list", "elements": "dict", "default": []},
        "compose": {"type": "str", "default": ""},
        "secret_environment": {"type": "dict", "default": {}, "no_log": True},
        "project": {"type": "str", "default": "redoubt-inference"},
        "root": {"type": "path", "default": "/opt/redoubt"},
        "state_dir": {"type": "path", "default": "/var/lib/redoubt"},
        "keep": {"type": "int", "default": 5},
        "created_from": {"type": "dict", "default": {}},
        "prompt": {"type": "str", "default": "The capital of France is"},
        "completion_timeout": {"type": "int", "default": 120},
        "crash_limit": {"type": "int", "default": 2},
        "lock_timeout": {"type": "int", "default": PATIENCE},
    }


def difference(store: Store, wanted: Wanted) -> list[dict[str, str]]:
    """The compose file now and as it will be; environment files are named, never shown."""
    current = store.current()
    document = store.manifest(current)
    now = store.path(current) / "compose.yml"
    number = current if document.get("digest") == wanted.digest else store.next_number()
    files = wanted.files(wanted.since(document, number))
    old_env = {k: v for k, v in document.get("files", {}).items() if k.startswith("env/")}
    new_env = {f"env/{container}.env": digest for container, digest in wanted.env_digests().items()}
    rows = [
        {
            "before_header": f"release {current}: compose.yml" if current else "no release",
            "after_header": f"release {number}: compose.yml",
            "before": now.read_text() if current and now.exists() else "",
            "after": files["compose.yml"],
        }
    ]
    if old_env != new_env:
        rows.append({"prepared": "environment files change: " + ", ".join(_changed(old_env, new_env)) + "\n"})
    return rows


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def forecast(store: Store, docker: Docker, wanted: Wanted) -> dict[str, Any]:
    """What a run would do, without changing anything; also on a host that has no Docker yet."""
    current = store.current()
    same = store.manifest(current).get("digest") == wanted.digest
    reasons: list[str] = []
    warnings: list[str] = []
    if docker.available():
        warnings = [f"a real run would be refused now: {text}" for text in host_problems(wanted.engines, docker)]
        if same:
            wrong, _ = drift(wanted.engines, wanted.digests, docker)
            reasons = [f"{container} {why}" for container, why in wrong.items()]
    if same:
        reasons += [f"{path} was changed by hand" for path in store.damaged(current)]
    action = "released" if not same else ("repaired" if reasons else "unchanged")
    return {
        "action": action,
        "changed": action != "unchanged",
        "number": current if same else store.next_number(),
        "reasons": reasons,
        "warnings": warnings,
        "pruned": [],
    }


def result_of(outcome: Outcome) -> dict[str, Any]:
    """An outcome in the module's documented form."""
    return {
        "action": outcome.action,
        "changed": outcome.changed,
        "number": outcome.number,
        "reasons": outcome.reasons,
        "proofs": [vars(proof) for proof in outcome.proofs],
        "pruned": outcome.pruned,
    }


def work(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """One run; returns the module's result. Raises SpecError, Busy, DockerError or Refused."""
    store = Store(params["root"], params["state_dir"])
    docker = Docker(params["project"])
    options = GateOptions(params["prompt"], params["completion_timeout"], params["crash_limit"])
    wanted = None
    if params["state"] == "present":
        wanted = wanted_release(params["engines"], params["compose"], params["secret_environment"])
    if params["state"] == "stopped" and (check or not docker.available()):
        running = running_containers(store, docker)
        return {"action": "stopped" if running else "unchanged", "changed": bool(running), "number": store.current()}
    if check:
        if wanted:
            return {**forecast(store, docker, wanted), "diff": difference(store, wanted)}
        target = params["number"] or store.state()["previous"]
        changed = target != store.current()
        return {"action": "rolled_back" if changed else "unchanged", "changed": changed, "number": target}
    if not docker.available():
        raise Refused("no Docker Engine answers on this host; run the docker role first")
    with store.prepared(params["lock_timeout"]):
        transaction = Transaction(store, docker, options, params["keep"])
        if params["state"] == "stopped":
            return result_of(transaction.stop())
        if wanted is None:
            return result_of(transaction.roll_back(params["number"]))
        shown = difference(store, wanted)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about = {"created": now, "created_from": params["created_from"], "project": params["project"]}
        return {**result_of(transaction.present(wanted, about)), "diff": shown}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = work(module.params, module.check_mode)
    except SpecError as error:
        module.fail_json(msg="\n- ".join(["Refused before anything was changed:", *error.problems]))
    except Busy as error:
        module.fail_json(msg=str(error), lock_holder=error.holder)
    except (DockerError, Refused) as error:
        module.fail_json(msg=str(error))
    for text in result.pop("warnings", []):
        module.warn(text)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
