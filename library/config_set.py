#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: install the configuration of one service as a transaction."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.config_files import (
    Desired,
    DesiredDirectory,
    DesiredFile,
    Snapshot,
    differing_directories,
    differing_files,
    dump_snapshots,
    load_snapshots,
    make_directories,
    put_back,
    snapshot,
    stage,
    swap,
    write_atomically,
)
from ansible.module_utils.probes import ask, ask_until, run
from ansible.module_utils.run_lock import Busy, only_run

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
  lock_timeout: {description: Seconds to wait for another run on this set to end., type: int, default: 600}
  settle: {description: Seconds that units and containers must stay up after an apply., type: float, default: 2}
  state_dir: {description: Where stamps live., type: path, default: /var/lib/redoubt/config_sets}
author: Redoubt founders
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

UNIT_DIRECTORIES = ("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/")


class Refused(Exception):
    """The new configuration was refused; the text is for the operator."""

    def __init__(self, text: str, restored: bool = False) -> None:
        super().__init__(text)
        self.restored = restored


class Transaction:
    """One run of the module on one set."""

    def __init__(self, params: dict[str, Any], check: bool) -> None:
        self.params = params
        self.check = check
        self.desired = _desired(params)
        extra = [params["triggers"], params["apply"], params["units"]]
        self.digest = self.desired.digest(extra)
        self.stamp_file = Path(params["state_dir"], params["name"] + ".json")
        self.good_file = Path(params["state_dir"], params["name"] + ".good.json")
        self.proof_file = Path(params["state_dir"], params["name"] + ".proof.json")
        self.stamp = _read_json(self.stamp_file).get("digest")
        self.changed_files = differing_files(self.desired, tolerant=check)
        self.changed_directories = differing_directories(self.desired, tolerant=check)

    def reason(self) -> str:
        """Why the set must be applied; empty when nothing is to be done."""
        if self.changed_files:
            return "changed: " + ", ".join(self.changed_files)
        if self.stamp != self.digest:
            return "the running service was never proved to use these files"
        for probe in self.params["probe"]:
            problem = ask(probe)
            if problem:
                return str(problem)
        return ""

    def validate(self) -> None:
        """Run the checkers on a staged copy. Raises Refused; nothing live has changed then."""
        if not self.params["validate"] or (self.check and self.stamp is None):
            return
        parent = self.params["state_dir"] if os.path.isdir(self.params["state_dir"]) else None
        root = tempfile.mkdtemp(prefix=f".staged-{self.params['name']}-", dir=parent)
        try:
            stage(self.desired, root)
            for command in self.params["validate"]:
                words = [word.replace("{staged}", root) for word in command]
                status, output = run(words, self.params["command_timeout"])
                if status:
                    text = output.replace(root, "")
                    raise Refused(
                        f"'{' '.join(command).replace('{staged}', '')}' refuses the new files of "
                        f"{self.params['name']} (exit {status}): {text} - nothing live was changed"
                    )
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def apply(self, probes: list[dict[str, Any]]) -> None:
        """Make the service use what is on disk, and prove it. Raises Refused."""
        if any(path.startswith(UNIT_DIRECTORIES) for path in self.changed_files):
            self._command(["systemctl", "daemon-reload"])
        if self.params["units"]:
            self._command(["systemctl", "enable", "--quiet", *self.params["units"]])
        for command in self.params["apply"]:
            self._command(command)
        problem = ask_until(probes, self.params["timeout"], self.params["settle"])
        if problem:
            raise Refused(problem)

    def _command(self, command: list[str]) -> None:
        status, output = run(command, self.params["command_timeout"])
        if status:
            raise Refused(f"'{' '.join(command)}' ended with {status}: {output}")

    def commit(self) -> None:
        """Swap, apply, prove and remember. On failure the previous set is back before Refused is raised."""
        before = self._last_good()
        self.stamp_file.unlink(missing_ok=True)  # from here until the proof, a killed run must be made up for
        try:
            swap(self.desired, self.changed_files)
            self.apply(self.params["probe"])
        except (Refused, OSError, KeyError) as error:
            raise Refused(f"{error} - {self._restore(before)}", restored=True) from error
        after = [snapshot(path) for path in self._paths()]
        write_atomically(str(self.good_file), dump_snapshots(after).encode(), 0o600, 0, 0)
        proof = json.dumps({"probe": self.params["probe"]}).encode()
        write_atomically(str(self.proof_file), proof, 0o600, 0, 0)
        write_atomically(str(self.stamp_file), json.dumps({"digest": self.digest}).encode(), 0o600, 0, 0)

    def _paths(self) -> list[str]:
        return [f.path for f in self.desired.files] + list(self.desired.links)

    def _last_good(self) -> list[Snapshot]:
        """Each path as it was when last proved good; paths new to the set as they stand now."""
        good: dict[str, Snapshot] = {}
        if self.good_file.exists():
            good = {item.path: item for item in load_snapshots(self.good_file.read_text())}
        paths = [*self._paths(), *[p for p in self.desired.absent if not os.path.isdir(p)]]
        return [good.get(path) or snapshot(path) for path in paths]

    def _restore(self, before: list[Snapshot]) -> str:
        if not before:
            return "the set has no files, so nothing was put back"
        had_any = any(item.kind != "none" for item in before)
        put_back(before)
        if not had_any:
            return "there was no earlier configuration, so the new files were removed again"
        # The new probes may ask for what only the new files give (a port, a name): prove the old set with its own.
        units = [probe for probe in self.params["probe"] if probe.get("unit")]
        try:
            self.apply(_read_json(self.proof_file).get("probe", units))
        except Refused as error:
            return f"the previous files are back, but they do not run either: {error}"
        if self.stamp and self.good_file.exists():
            # What was proved before runs again: the next run with the old wishes has nothing to do.
            write_atomically(str(self.stamp_file), json.dumps({"digest": self.stamp}).encode(), 0o600, 0, 0)
        return "the previous configuration is back and running"

    def diff(self) -> list[dict[str, str]]:
        """Before and after of each changed file that is no secret, in Ansible's form."""
        rows = []
        for file in self.desired.files:
            if file.path in self.changed_files:
                now = snapshot(file.path)
                texts = (
                    ("[secret]\n", "[secret, changed]\n")
                    if file.secret
                    else (now.data.decode(errors="replace"), file.content)
                )
                rows.append(
                    {
                        "before_header": file.path,
                        "after_header": file.path,
                        "before": texts[0],
                        "after": texts[1],
                    }
                )
        return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise Refused(f'mode {text!r} is not an octal number; write it as a string such as "0644"') from None


def _desired(params: dict[str, Any]) -> Desired:
    files = [
        DesiredFile(f["path"], f["content"], _mode(f["mode"]), f["owner"], f["group"], secret)
        for key, secret in (("files", False), ("secret_files", True))
        for f in params[key]
    ]
    paths = [f.path for f in files]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise Refused(f"these paths are given twice: {', '.join(twice)}")
    return Desired(
        directories=[
            DesiredDirectory(d["path"], _mode(d["mode"]), d["owner"], d["group"]) for d in params["directories"]
        ],
        files=files,
        links={link["path"]: link["target"] for link in params["links"]},
        absent=params["absent"],
    )


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
        "lock_timeout": {"type": "int", "default": 600},
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


def work(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """One run; returns the module's result. Raises Refused, Busy, or KeyError for an unknown owner."""
    if check:
        return _carry_out(Transaction(params, check), check)
    make_directories([DesiredDirectory(params["state_dir"], 0o700, "root", "root")])
    with only_run(Path(params["state_dir"], f".{params['name']}.lock"), params["name"], params["lock_timeout"]):
        return _carry_out(Transaction(params, check), check)


def _carry_out(transaction: Transaction, check: bool) -> dict[str, Any]:
    reason = transaction.reason()
    if reason:
        transaction.validate()
    if not check:
        make_directories(transaction.desired.directories)
    result = {
        "changed": bool(reason or transaction.changed_directories),
        "changed_files": transaction.changed_files,
        "reason": reason,
        "applied": bool(reason) and not check,
        "restored": False,
        "diff": transaction.diff(),  # before the live files change
    }
    if result["applied"]:
        transaction.commit()
    return result


def main() -> None:
    """Entry point."""
    module = QuietModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = work(module.params, module.check_mode)
    except Refused as error:
        module.fail_json(msg=f"{module.params['name']}: {error}", restored=error.restored)
    except Busy as error:
        module.fail_json(msg=str(error), restored=False)
    except KeyError as error:
        module.fail_json(msg=f"{module.params['name']}: no such user or group on this host: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
