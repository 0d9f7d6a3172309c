#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the model files of a host, each proved by size and SHA-256."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, planned, present, verified
from ansible.module_utils.artifacts.protection import KINDS as PROTECTIONS
from ansible.module_utils.artifacts.settling import MOST_WORKERS, Settings
from ansible.module_utils.artifacts.sources import CONTROLLER
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.fanout.peers import make_fanout
from ansible.module_utils.fetch.choose import KINDS, make_sources
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.run_lock import PATIENCE

DOCUMENTATION = r"""
module: weights
short_description: Bring, prove or remove the files of models
description:
  - Fetches the files that a manifest lists from a folder, a web server or a hub, in pieces over several connections,
    hashing them on the way; publishes a revision by one rename, read-only, so that a part of one is never visible.
  - Keeps each file's bytes once, whatever number of models and revisions have it; trees are hard links to them.
  - Remembers size, times and inode of every proved file, so that the next run only looks at those.
  - A run that was killed is made up for by the next one, which takes over files and pieces that had arrived.
  - Of a damaged large file, the damaged pieces are fetched again.
options:
  models:
    description:
      - Models (name, revision, files as a list of path, size and sha256, and repo, its name on a hub).
        For C(absent), name is enough.
    type: list
    elements: dict
    required: true
  source:
    description:
      - Folder that holds one folder per model, named as the model. C(file:///folder) on this host, or C(https://…).
      - C(controller) means that the files of C(planned) were copied from the control host to where it said.
    type: str
  sources:
    description: Used instead of O(source), in this order; the next one for each file that one does not have right.
    type: list
    elements: dict
    default: []
    suboptions:
      url: {description: "C(file:///folder) on this host, or C(https://…)", type: str, default: ""}
      kind:
        description:
          - C(tree) has URL/MODEL/PATH (also an anonymous S3 bucket). C(hub) is the Hugging Face hub or a mirror of it,
            C(modelscope) ModelScope; both need the model's repo. C(blobs) has URL/sha256/ab/abcd….
            C(depot) has URL/MODEL/REVISION/PATH with 12 digits of the revision, as a depot shows them.
            C(addresses) has one address per file.
        type: str
        choices: [tree, hub, modelscope, blobs, depot, addresses]
        default: tree
      token: {description: Sent to the server of O(sources[].url) only, type: str, default: ""}
      revision: {description: Branch or commit for C(modelscope); C(master) when empty, type: str, default: ""}
      urls: {description: "For C(addresses), C(MODEL/PATH: address), such as presigned ones", type: dict, default: {}}
  fanout:
    description: Hosts that bring the files together, each byte from the source about once; see M(weights_fanout).
    type: dict
    suboptions:
      name: {description: Name of this host among the peers, type: str, required: true}
      folder: {description: Where M(weights_fanout) put its certificates, type: path, default: /run/redoubt/fanout}
      port: {description: Port on which they serve, type: int, default: 18443}
      peers: {description: "The hosts as {name: address}, with this one", type: dict, default: {}}
  connections: {description: Connections at once, type: int, default: 8}
  bandwidth: {description: Bytes per second over all connections; 0 for no cap, type: int, default: 0}
  retries: {description: Failures in a row after which the next source is asked, type: int, default: 6}
  proxy:
    description: Proxy as C(http://[user:password@]host:port); what the environment says when empty.
    type: str
    default: ""
  no_proxy: {description: Hosts and domains without a proxy, separated by commas, type: str, default: ""}
  state:
    description:
      - C(present) brings what is missing or wrong. C(verified) changes no model and fails on a fault.
        What it read it writes down, so that the next C(present) mends it.
      - C(planned) returns which files C(present) would need. C(absent) removes.
    type: str
    choices: [present, verified, planned, absent]
    default: present
  deep: {description: With C(verified), hash every byte again, type: bool, default: false}
  strict: {description: With C(verified), fail on a fault rather than only return it, type: bool, default: true}
  directory: {description: Where models are published, type: path, default: /srv/redoubt/models}
  state_dir: {description: Where stamps are kept, type: path, default: /var/lib/redoubt/weights}
  progress_file:
    {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/weights.json}
  metrics_file:
    description: Where progress is written for Prometheus (node exporter), if its folder is there
    type: path
    default: /var/lib/redoubt/textfile/redoubt_weights.prom
  keep_revisions:
    description: Revisions kept per model with the wanted one; those that a release refers to are kept besides
    type: int
    default: 2
  keep_unlisted:
    description: Whether models stay that are not listed; if not, those that no release refers to are removed
    type: bool
    default: true
  releases_dir: {description: Where the host's releases are, type: path, default: /opt/redoubt}
  protect:
    description:
      - C(immutable) sets the file system's immutable flag on every file, C(verity) fs-verity.
        Refused where the file system, or the rights of the run, do not allow it.
    type: str
    choices: [none, immutable, verity]
    default: none
  allow_pickle:
    {description: Models or model/path whose pickle files may come, type: list, elements: str, default: []}
  allow_code:
    description: Models or model/path whose Python files may come; an engine runs them with trust_remote_code
    type: list
    elements: str
    default: []
  reserve_bytes: {description: Bytes that must stay free, type: int, default: 0}
  workers: {description: Files hashed at once; 0 for as many as there are cores up to 16, type: int, default: 0}
  ca_file: {description: Certificate authority for https; the system's when empty, type: str, default: ""}
  timeout: {description: Seconds without an answer from a server, type: int, default: 60}
  lock_timeout: {description: Seconds to wait for another run on this host to end, type: int, default: 900}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Bring the models from a mounted medium
  weights:
    models: "{{ weights_models }}"
    source: file:///media/redoubt/models

- name: Hash every byte again
  weights:
    models: "{{ weights_models }}"
    state: verified
    deep: true
"""

RETURN = r"""
from_peers: {description: Bytes of files that other hosts had, type: int, returned: present}
models:
  description:
    - Per model. For C(present) name, revision, path, state (present, published, mended, adopted), bytes_copied,
      bytes_reused, bytes_hashed, fetched, removed, pruned, warnings, and facts - tensors, tensor_bytes, dtypes (bytes
      by type), config (the geometry in config.json), gguf (figures by file), code (programs that come with it).
    - For C(verified) name, revision, path, ok, files, bytes_hashed, faults (path, kind, expected, found, text).
  type: list
  returned: present, verified
ok: {description: Whether every model is as its manifest says, type: bool, returned: verified}
pending: {description: Whether C(present) would do anything, type: bool, returned: planned}
needed: {description: "Files to bring (model, path, size, folder)", type: list, returned: planned}
removed: {description: Folders removed, type: list, returned: absent}
bytes: {description: Bytes copied, type: int, returned: present}
reproof_installed:
  {description: "Whether the role's timer is on the host", type: bool, returned: present and planned}
seconds: {description: Time taken, type: float, returned: always}
"""


TIMER = Path("/etc/systemd/system/redoubt-weights-reproof.timer")
DEPOT_HINT = (
    "The depot lacks what lock/models.yml lists: on a site with a network run `./redoubt play gather`, on one without "
    "a network `./redoubt bundle import` with a medium that has it"
)
FANOUT = {
    "name": {"type": "str", "required": True},
    "folder": {"type": "path", "default": "/run/redoubt/fanout"},
    "port": {"type": "int", "default": 18443},
    "peers": {"type": "dict", "default": {}},
}
SOURCE = {
    "url": {"type": "str", "default": ""},
    "kind": {"type": "str", "choices": list(KINDS), "default": "tree"},
    "token": {"type": "str", "default": "", "no_log": True},
    "revision": {"type": "str", "default": ""},
    "urls": {"type": "dict", "default": {}, "no_log": True},
}


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the parameters say; returns the module's result, with ``failed`` in it for a fault. Raises Refusal."""
    store = Store(Path(params["directory"]), Path(params["state_dir"]), params["lock_timeout"])
    limits = Limits(
        connections=params["connections"],
        bandwidth=params["bandwidth"],
        retries=params["retries"],
        lanes=params["workers"] or min(MOST_WORKERS, os.cpu_count() or 1),
        timeout=params["timeout"],
    )
    settings = Settings(
        workers=params["workers"],
        how=How(limits, fanout=make_fanout(params["fanout"] or {}, params["timeout"])),
        keep_revisions=params["keep_revisions"],
        keep_unlisted=params["keep_unlisted"],
        releases=Path(params["releases_dir"]),
        protect=params["protect"],
        reserve_bytes=params["reserve_bytes"],
        progress_file=Path(params["progress_file"]),
        metrics_file=Path(params["metrics_file"]),
        check=check,
    )
    if params["state"] == "absent":
        wanted = [(str(item["name"]), item.get("revision")) for item in params["models"]]
        removed = absent(store, wanted, settings)
        return {"changed": bool(removed), "removed": removed}
    models = parse_models(params["models"], params["allow_pickle"], params["allow_code"])
    if params["state"] == "planned":
        pending, needed = planned(store, models, settings)
        return {"changed": False, "pending": pending, "needed": needed, "reproof_installed": TIMER.exists()}
    if params["state"] == "verified":
        verdicts = verified(store, models, settings, params["deep"])
        texts = [fault["text"] for verdict in verdicts for fault in verdict["faults"]]
        result: dict[str, Any] = {"changed": False, "ok": not texts, "models": verdicts}
        if texts and params["strict"]:
            result["failed"] = True
            result["msg"] = str(Refusal([*texts, "Run site.yml to fetch these files again"]))
        return result
    sources = None
    if params["source"] != CONTROLLER:
        network = Network(params["ca_file"], params["timeout"], params["proxy"], params["no_proxy"])
        listed = params["sources"] or [params["source"] or ""]
        variable = "weights_sources" if params["sources"] else "weights_source"
        sources = make_sources(listed, variable, network)
    try:
        changed, outcomes = present(store, models, sources, settings)
    except Refusal as refusal:
        if any(item["kind"] == "depot" for item in params["sources"]):
            raise Refusal([*refusal.problems, DEPOT_HINT]) from refusal
        raise
    lines = [f"{item.name} {item.revision[:12]}: {item.state}" for item in outcomes if item.state != "present"]
    lines += [f"{path}: removed" for item in outcomes for path in item.pruned]
    return {
        "changed": changed,
        "models": [vars(item) for item in outcomes],
        "reproof_installed": TIMER.exists(),
        "warnings": [f"{item.name}: {text}" for item in outcomes for text in item.warnings]
        + (settings.how.fanout.warnings if settings.how.fanout else []),
        "bytes": sum(item.bytes_copied for item in outcomes),
        "from_peers": settings.how.fanout.bytes if settings.how.fanout else 0,
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)},
    }


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "models": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "str"},
            "sources": {"type": "list", "elements": "dict", "default": [], "options": SOURCE},
            "fanout": {"type": "dict", "options": FANOUT},
            "connections": {"type": "int", "default": 8},
            "bandwidth": {"type": "int", "default": 0},
            "retries": {"type": "int", "default": 6},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "state": {"choices": ["present", "verified", "planned", "absent"], "default": "present"},
            "deep": {"type": "bool", "default": False},
            "strict": {"type": "bool", "default": True},
            "directory": {"type": "path", "default": "/srv/redoubt/models"},
            "state_dir": {"type": "path", "default": "/var/lib/redoubt/weights"},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/weights.json"},
            "metrics_file": {"type": "path", "default": "/var/lib/redoubt/textfile/redoubt_weights.prom"},
            "keep_revisions": {"type": "int", "default": 2},
            "keep_unlisted": {"type": "bool", "default": True},
            "releases_dir": {"type": "path", "default": "/opt/redoubt"},
            "protect": {"choices": list(PROTECTIONS), "default": "none"},
            "allow_pickle": {"type": "list", "elements": "str", "default": []},
            "allow_code": {"type": "list", "elements": "str", "default": []},
            "reserve_bytes": {"type": "int", "default": 0},
            "workers": {"type": "int", "default": 0},
            "ca_file": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
            "lock_timeout": {"type": "int", "default": PATIENCE},
        },
        required_if=[("state", "present", ("source", "sources"), True)],
        supports_check_mode=True,
    )
    answer(module, run, module.params["directory"])


if __name__ == "__main__":
    main()
