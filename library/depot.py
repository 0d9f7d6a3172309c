#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the depot of a host - its keys, what it publishes, whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer, plural
from ansible.module_utils.artifacts.progress import Progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.depot.certificate import Certificate
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.layout import layout
from ansible.module_utils.depot.signing import Signer
from ansible.module_utils.lock.parts import parts
from ansible.module_utils.run_lock import PATIENCE

DOCUMENTATION = r"""
module: depot
short_description: Make, fill, prove and clean a depot
description:
  - A depot keeps each file's bytes once, under its SHA-256. The view of a site is links to them, built beside the one
    that is served and switched to by one rename, so that a run that dies leaves what was served.
  - Repositories are signed by an OpenPGP key that is made on the host, as are the server's certificate and its CA. No
    private key leaves the host.
options:
  state:
    description:
      - C(present) makes the folders, the keys, and the signatures that are missing. C(published) puts O(lock) in force;
        its bytes must be there. C(verified) fails on a fault and changes nothing but what O(set_aside) says.
      - C(collected) removes what no lock refers to. C(withdrawn) takes O(site) out. C(inventory) returns what is there.
    type: str
    choices: [present, published, verified, collected, withdrawn, inventory]
    default: present
  directory: {description: Where the depot is, type: path, default: /srv/redoubt/depot}
  gnupg: {description: Where its OpenPGP key is, type: path, default: /etc/redoubt/depot/gnupg}
  tls: {description: Where its certificates are, type: path, default: /etc/redoubt/depot/tls}
  names:
    description: With C(present), names and addresses of the server's certificate; without any there is none.
    type: list
    elements: str
    default: []
  certificate_days: {description: Days that the server's certificate is valid, type: int, default: 397}
  renew_days: {description: Days before its end at which it is made anew, type: int, default: 30}
  lock: {description: With C(published), the lock document, type: dict}
  site:
    description: With C(withdrawn), the site; with C(collected) in check mode, one that is counted as withdrawn.
    type: str
  deep: {description: "With C(verified), read every byte", type: bool, default: true}
  strict: {description: "With C(verified), fail on a fault rather than only return it", type: bool, default: true}
  set_aside:
    description: With C(verified), take damaged blobs out of the store, so that the next import or gather brings them.
    type: bool
    default: false
  workers: {description: Files read at once; 0 for as many as there are cores, type: int, default: 0}
  progress_file: {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/depot.json}
  lock_timeout: {description: Seconds to wait for another run on this depot to end, type: int, default: 900}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Make the depot's keys
  depot:
    names: [depot.example.org, 10.0.0.5]

- name: Read every byte again
  depot:
    state: verified
"""

RETURN = r"""
ca: {description: Certificate of the CA as PEM, type: str, returned: present}
key: {description: OpenPGP public key in armour, type: str, returned: present}
certificate: {description: "SHA-256 of the server's certificate; empty without one", type: str, returned: present}
fingerprint: {description: Fingerprint of that key, type: str, returned: present}
faults: {description: "What is wrong, each as path, kind, text and sha256", type: list, returned: verified}
freed_bytes: {description: Bytes that the disk got back, type: int, returned: collected}
inventory: {description: "Sites with serial and digest, and blobs with their sizes", type: dict, returned: inventory}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the parameters say; returns the module's result. Raises Refusal, Busy, OSError."""
    depot = Depot(Path(params["directory"]), Signer(Path(params["gnupg"])), params["lock_timeout"])
    states = {
        "present": _present,
        "published": _published,
        "verified": _verified,
        "collected": _collected,
        "withdrawn": _withdrawn,
        "inventory": _inventory,
    }
    return states[params["state"]](depot, params, check)


def _present(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    certificate = Certificate(params["names"], params["certificate_days"], params["renew_days"], Path(params["tls"]))
    if check:
        # On a host where nothing is installed yet, nothing can be asked either.
        made = depot.signer.ready and depot.root.is_dir() and not (params["names"] and certificate.reasons())
        return {"changed": not made, "ca": "", "key": "", "fingerprint": "", "certificate": certificate.digest()}
    lines = ["made its folders"] if depot.prepare() else []
    if params["names"]:
        lines += certificate.ensure()
        ca = certificate.path("ca.crt").read_bytes()
        lines += ["wrote the CA's certificate"] if depot.show("ca.crt", ca) else []
    else:
        ca = b""
    lines += ["made its OpenPGP key"] if depot.signer.create(" ".join(["Redoubt depot", *params["names"][:1]])) else []
    lines += ["signed its repositories"] if depot.sign() else []
    key = depot.signer.public()
    return {
        "changed": bool(lines),
        "ca": ca.decode(),
        "key": key.decode(),
        "fingerprint": depot.signer.fingerprint(),
        "certificate": certificate.digest(),
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)},
    }


def _published(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    lock = params["lock"]
    if check:
        layout(lock)
        return {"changed": depot.lock(lock["site"]) != lock, "missing": len(depot.missing(parts(lock)))}
    return {"changed": depot.publish(lock)}


def _verified(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    if not depot.root.is_dir():
        raise Refusal(f"{depot.root}: there is no depot; run the playbook depot, or correct depot_directory")
    total = sum(depot.inventory()["blobs"].values()) if params["deep"] else 0
    progress = Progress(Path(params["progress_file"]), "depot", total)
    faults = depot.verify(params["deep"], params["workers"], lambda count: progress.add(count, str(depot.root)))
    progress.finish()
    aside = []
    if params["set_aside"] and not check:
        aside = [fault.sha256 for fault in faults if fault.kind == "damaged" and depot.set_aside(fault.sha256)]
    result: dict[str, Any] = {"changed": bool(aside), "faults": [vars(fault) for fault in faults], "set_aside": aside}
    if faults and params["strict"]:
        count = plural(len(faults), "fault")
        help_text = "Bring damaged or missing files again with the playbook gather, or with a bundle; then publish"
        result["failed"] = True
        result["msg"] = str(Refusal([f"{depot.root}: {count}", *map(str, faults), help_text]))
    return result


def _collected(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    freed = depot.collect_garbage(dry=check, without=params["site"])
    return {"changed": freed > 0, "freed_bytes": freed}


def _withdrawn(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    if check:
        return {"changed": depot.lock(params["site"]) is not None}
    return {"changed": depot.withdraw(params["site"])}


def _inventory(depot: Depot, params: dict[str, Any], check: bool) -> dict[str, Any]:
    return {"changed": False, "inventory": depot.inventory()}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "choices": ["present", "published", "verified", "collected", "withdrawn", "inventory"],
                "default": "present",
            },
            "directory": {"type": "path", "default": "/srv/redoubt/depot"},
            "gnupg": {"type": "path", "default": "/etc/redoubt/depot/gnupg", "no_log": False},
            "tls": {"type": "path", "default": "/etc/redoubt/depot/tls"},
            "names": {"type": "list", "elements": "str", "default": []},
            "certificate_days": {"type": "int", "default": 397},
            "renew_days": {"type": "int", "default": 30},
            "lock": {"type": "dict"},
            "site": {"type": "str"},
            "deep": {"type": "bool", "default": True},
            "strict": {"type": "bool", "default": True},
            "set_aside": {"type": "bool", "default": False},
            "workers": {"type": "int", "default": 0},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/depot.json"},
            "lock_timeout": {"type": "int", "default": PATIENCE},
        },
        required_if=[("state", "published", ["lock"]), ("state", "withdrawn", ["site"])],
        supports_check_mode=True,
    )
    answer(module, run, module.params["directory"])


if __name__ == "__main__":
    main()
