# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Install one service's files as a transaction: check, swap, apply, prove, else restore; remember what was proved.

Standard library only, Python 3.9+. The parameters are those of the module config_set.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

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
from ansible.module_utils.run_lock import only_run

UNIT_SECONDS = 20
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
        # It reloads systemd even where it has nothing to do, which takes GPUs from containers of the legacy runtime.
        new = [u for u in self.params["units"] if run(["systemctl", "is-enabled", "--quiet", u], UNIT_SECONDS)[0]]
        if new:
            self._command(["systemctl", "enable", "--quiet", *new])
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
        secret = [file.path for file in self.desired.files if file.secret]
        # How to prove the set once more, and what a fingerprint must know of it.
        about = {"probe": self.params["probe"], "units": self.params["units"], "secret_files": secret}
        proof = json.dumps(about).encode()
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


def install(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """One run of the module; returns the module's result. Raises Refused, Busy, or KeyError for an unknown owner."""
    if check:
        return _carry_out(Transaction(params, check), check)
    make_directories([DesiredDirectory(params["state_dir"], 0o700, "root", "root")])
    lock, what = Path(params["state_dir"], f".{params['name']}.lock"), f"the configuration of {params['name']}"
    with only_run(lock, what, params["lock_timeout"]):
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
