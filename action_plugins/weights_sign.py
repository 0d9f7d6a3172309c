"""Action that signs a model's list of files with a private key, on the control host. Needs no connection.

The passphrase is the variable `weights_sign_passphrase` (from a vault) or the environment's REDOUBT_SIGN_PASSPHRASE. It
is read here and not given as an argument, so that no output, however verbose, can hold it, and reasons of a failure can
be shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner.plain import plain
from provenance import sign, signatures
from provenance.files import put, text
from provenance.oms import BadSignature
from provenance.trust import fingerprint

VARIABLE = "weights_sign_passphrase"
ENVIRONMENT = "REDOUBT_SIGN_PASSPHRASE"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Writes `dest`; arguments: name, key, certificate (a chain, or empty), entry or lock (a YAML file), dest."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {changed, dest, files, key}; `key` is the fingerprint by which the signature names its key."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = plain(self._task.args)
        files = self._files(given)
        key = self._load(
            "weights_sign_key", given["key"], lambda pem: sign.load_private_key(pem, self._phrase(task_vars))
        )
        chain = ()
        if given.get("certificate"):
            chain = self._load("weights_sign_certificate", given["certificate"], lambda pem: sign.load_chain(pem, key))
        dest = Path(given["dest"])
        changed = not (dest.is_file() and sign.is_signed(dest.read_text("utf-8", "replace"), files, key, chain))
        if changed:
            put(dest, sign.sign(given["name"], files, key, chain), check=self._task.check_mode)
        return result | {
            "changed": changed,
            "dest": str(dest),
            "files": len(files),
            "key": fingerprint(key.public_key()),
        }

    def _files(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return SHA-256 by path."""
        entry, where = given.get("entry"), "weights_sign_folder"
        try:
            if not entry:
                where = f"weights_sign_lock = {given['lock']}"
                document = plain(yaml.safe_load(text(self._loader, given["lock"])))
                locks = document.get("redoubt_model_locks") if isinstance(document, dict) else None
                entry = locks.get(given["name"]) if isinstance(locks, dict) else None
                where += f", redoubt_model_locks.{given['name']}"
            return signatures.locked_files(entry)
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = str(error).partition("\n")[0]
            fix = "Fix: make the entry with weights_lock, or name its file or the model's folder"
            raise AnsibleError(f"{where}: {reason}. {fix}") from None

    def _load(self, variable: str, path: str, load: Any) -> Any:
        try:
            return load(text(self._loader, path))
        except (OSError, BadSignature, ValueError) as error:
            # Not the text of a ValueError of some library: it could quote what it was reading.
            why = str(error) if isinstance(error, OSError | BadSignature) else "it is no text"
            raise AnsibleError(f"{variable} = {path}: {why}. Fix: see docs/provenance.md, 'Making keys'") from None

    def _phrase(self, task_vars: dict[str, Any] | None) -> str:
        raw = (task_vars or {}).get(VARIABLE)
        return str(self._templar.template(raw)) if raw is not None else os.environ.get(ENVIRONMENT, "")
