#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: a bundle of a host's depot - what it would carry, writing, proving and importing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.artifacts.progress import Progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.bundle.building import Wishes, build
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.document import MANIFEST
from ansible.module_utils.bundle.importing import bring, rehearse
from ansible.module_utils.bundle.packing import parse_size
from ansible.module_utils.bundle.planning import against, plan
from ansible.module_utils.bundle.signing import sign
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer
from ansible.module_utils.run_lock import PATIENCE

DOCUMENTATION = r"""
module: bundle
short_description: Build, prove and import bundles
description:
  - A bundle carries a lock and the bytes of its parts across a gap. Its manifest is signed; each volume lists its
    pieces with their SHA-256, so that a bad file is named and it alone is copied again.
  - A run that was stopped goes on where it was. Nothing of a bundle that is refused enters a depot.
options:
  state:
    description:
      - C(built) writes O(lock) from the depot into O(path), and signs it with O(sign_key). C(verified) proves what is
        in O(path) and fails on a fault. C(imported) brings it into the depot and publishes its lock.
    type: str
    choices: [built, verified, imported]
    required: true
  path: {description: Folder of the bundle, type: path, required: true}
  directory: {description: Where the depot is, type: path, default: /srv/redoubt/depot}
  gnupg: {description: Where the depot's OpenPGP key is, type: path, default: /etc/redoubt/depot/gnupg}
  lock: {description: With C(built), the lock document, type: dict}
  volume_size: {description: "With C(built), bytes of a volume, such as 25G; empty for one", type: str, default: ""}
  piece_size: {description: "With C(built), the longest file", type: str, default: 1Gi}
  against: {description: "With C(built), text of the far inventory.json, or of a manifest.json", type: str, default: ""}
  installer: {description: "With C(built), file that brings bare machines up, to be in the bundle", type: path}
  sign_key: {description: "With C(built), minisign's secret key on the host", type: path}
  password: {description: Its password; empty for a key without one, type: str, default: ""}
  keys: {description: "Public keys: files or folders here, or their text", type: list, elements: str, default: []}
  signatures: {description: How many different keys must have signed, type: int, default: 1}
  site: {description: "With C(imported), the site that it must be for", type: str}
  allow_older: {description: "With C(imported), take an older lock than was published", type: bool, default: false}
  partial: {description: Volumes that are not in O(path) are no fault, type: bool, default: false}
  progress_file: {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/bundle.json}
  lock_timeout: {description: Seconds to wait for another run on this depot to end, type: int, default: 900}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Import what is on the medium
  bundle:
    state: imported
    path: /media/usb
    keys: [/etc/redoubt/bundle-keys]
"""

RETURN = r"""
site: {description: The site, type: str, returned: always}
serial: {description: Its lock's serial, type: int, returned: always}
digest: {description: Its lock's digest, type: str, returned: always}
bytes: {description: "Bytes that were written, read or brought", type: int, returned: always}
totals: {description: "Files and bytes by kind, in all and carried", type: dict, returned: built}
volumes: {description: Names of the volumes, type: list, returned: built}
absent: {description: Volumes that have to come yet, type: list, returned: imported}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the parameters say; returns the module's result. Raises Refusal, Busy, OSError."""
    depot = Depot(Path(params["directory"]), Signer(Path(params["gnupg"])), params["lock_timeout"])
    states = {"built": _built, "verified": _verified, "imported": _imported}
    return states[params["state"]](depot, params, check)


def _built(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    lock, out = params["lock"], Path(params["path"])
    delta = against(params["against"].encode(), "against") if params["against"] else None
    totals = plan(lock, depot.inventory()["blobs"] if depot.root.is_dir() else {}, delta)["totals"]
    known = {"site": lock["site"], "serial": lock["serial"], "digest": lock["digest"], "totals": totals}
    if check:
        return {"changed": not (out / MANIFEST).is_file(), "bytes": 0, "volumes": [], **known}
    wishes = Wishes(
        volume_size=parse_size(params["volume_size"]) if params["volume_size"] else None,
        piece=parse_size(params["piece_size"]),
        against=delta,
        installer=Path(params["installer"]) if params["installer"] else None,
    )
    progress = Progress(Path(params["progress_file"]), "bundle", totals["all"]["carried_bytes"])
    built = build(depot, lock, out, wishes, lambda count: progress.add(count, str(out)))
    progress.finish()
    changed = built.changed
    if params["sign_key"]:
        before = {path: path.read_bytes() for path in out.glob("*.minisig")}
        made = sign(out, built.manifest, Path(params["sign_key"]), params["password"])
        changed = before.get(made) != made.read_bytes() or changed
    volumes = [row.name for row in built.manifest.volumes]
    return {"changed": changed, "bytes": built.written, "volumes": volumes, **known}


def _verified(_: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    del check  # it changes nothing
    progress = Progress(Path(params["progress_file"]), "bundle", 0)
    report = verify(
        Path(params["path"]),
        params["keys"],
        params["signatures"],
        partial=params["partial"],
        tick=lambda count: progress.add(count, params["path"]),
    )
    progress.finish()
    if report.faults:
        raise Refusal([f"{params['path']}/{fault}" for fault in report.faults])
    manifest = report.content.manifest
    done = {"site": manifest.site, "serial": manifest.serial, "digest": manifest.digest}
    return {"changed": False, "bytes": report.read_bytes, **done}


def _imported(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    progress = Progress(Path(params["progress_file"]), "bundle", 0)
    done = (rehearse if check else bring)(
        Path(params["path"]),
        depot,
        params["keys"],
        site=params["site"],
        need=params["signatures"],
        allow_older=params["allow_older"],
        partial=params["partial"],
        tick=lambda count: progress.add(count, params["path"]),
    )
    progress.finish()
    return {
        "changed": done.changed,
        "bytes": done.brought,
        "site": done.site,
        "serial": done.serial,
        "digest": done.digest,
        "absent": done.absent,
    }


def main() -> None:
    """Entry point of the module."""
    text: dict[str, Any] = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["built", "verified", "imported"], "required": True},
            "path": {"type": "path", "required": True},
            "directory": {"type": "path", "default": "/srv/redoubt/depot"},
            "gnupg": {"type": "path", "default": "/etc/redoubt/depot/gnupg"},
            "lock": {"type": "dict"},
            "volume_size": text,
            "piece_size": {"type": "str", "default": "1Gi"},
            "against": text,
            "installer": {"type": "path"},
            "sign_key": {"type": "path", "no_log": False},
            "password": {**text, "no_log": True},
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "signatures": {"type": "int", "default": 1},
            "site": {"type": "str"},
            "allow_older": {"type": "bool", "default": False},
            "partial": {"type": "bool", "default": False},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/bundle.json"},
            "lock_timeout": {"type": "int", "default": int(PATIENCE)},
        },
        required_if=[("state", "built", ["lock"])],
        supports_check_mode=True,
    )
    answer(module, run, str(module.params["path"]))


if __name__ == "__main__":
    main()
