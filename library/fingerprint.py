#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the fingerprint of a host."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.config_files import write_atomically
from ansible.module_utils.fingerprint import artefacts, files, packages, system
from ansible.module_utils.fingerprint.compare import as_rows, drift
from ansible.module_utils.fingerprint.document import Gathered
from ansible.module_utils.fingerprint.normal import Normal

DOCUMENTATION = r"""
module: fingerprint
short_description: Say in one document, with one digest, what Redoubt controls on this host
description:
  - Packages with versions, the files that Redoubt wrote, images and containers by config digest, weights by SHA-256,
    units, kernel parameters, accounts. Hosts that were given the same have the same digest C(content), whatever their
    addresses, names and package sources are; those stand in a part that the digest leaves out.
  - Of secrets it says that they are there, and their mode.
  - Compares with what the host itself recorded when Redoubt last worked on it (C(drift)).
  - Changes nothing but the file C(dest), which is a report.
options:
  host: {description: The host's name in the inventory., type: str, required: true}
  names: {description: Further names of the host., type: list, elements: str, default: []}
  addresses: {description: Further addresses of the host., type: list, elements: str, default: []}
  images: {description: "The images of the host's plan.", type: list, elements: dict, default: []}
  deep: {description: Read all weights again instead of trusting their proofs., type: bool, default: false}
  dest: {description: File that the document is written to; none is written without it., type: path}
  root: {description: Folder of the releases., type: path, default: /opt/redoubt}
  config_sets: {description: Folder of the records of config_set., type: path, default: /var/lib/redoubt/config_sets}
  models: {description: Folder of the weights., type: path, default: /srv/redoubt/models}
  weights_state_dir: {description: Folder of the weights' proofs., type: path, default: /var/lib/redoubt/weights}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Take the host's fingerprint
  fingerprint:
    host: "{{ inventory_hostname }}"
    images: "{{ deployment_plan.images }}"
    dest: /var/lib/redoubt/fingerprint.json
  register: __fingerprint
"""

RETURN = r"""
fingerprint: {description: "The document; see module_utils/fingerprint/document.py.", type: dict, returned: always}
drift:
  description: "What differs from the host's records: section, name, field, left (recorded), right (found)."
  type: list
  returned: always
"""


def take(params: dict[str, Any]) -> dict[str, Any]:
    """Look at everything and return the document. Raises Refusal, NoPackages, OSError."""
    gathered = Gathered()
    names = [params["host"], *params["names"], *system.names()]
    state = Path(params["config_sets"])
    normal = Normal([*params["addresses"], *system.addresses()], names)
    packages.gather(gathered)
    files.Files(normal, gathered, str(state), params["root"]).gather()
    system.gather_units(gathered, files.recorded_units(state), files.probed_units(state))
    system.gather_kernel(gathered)
    system.gather_accounts(gathered)
    system.gather_local(gathered)
    artefacts.gather_images(gathered, params["images"])
    models, proofs = Path(params["models"]), Path(params["weights_state_dir"])
    artefacts.gather_weights(gathered, models, proofs, Path(params["root"]), params["deep"])
    document: dict[str, Any] = gathered.document(params["host"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    return document


def argument_spec() -> dict[str, Any]:
    """The module's arguments in Ansible's form."""
    strings: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    return {
        "host": {"type": "str", "required": True},
        "names": strings,
        "addresses": strings,
        "images": {"type": "list", "elements": "dict", "default": []},
        "deep": {"type": "bool", "default": False},
        "dest": {"type": "path"},
        "root": {"type": "path", "default": "/opt/redoubt"},
        "config_sets": {"type": "path", "default": "/var/lib/redoubt/config_sets"},
        "models": {"type": "path", "default": "/srv/redoubt/models"},
        "weights_state_dir": {"type": "path", "default": "/var/lib/redoubt/weights"},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        document = take(module.params)
    except (Refusal, packages.NoPackages) as error:
        module.fail_json(msg=f"no fingerprint of {module.params['host']}: {error}")
    except OSError as error:
        module.fail_json(
            msg=f"no fingerprint of {module.params['host']}: cannot read {error.filename}: {error.strerror}"
        )
    if module.params["dest"] and not module.check_mode:
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        write_atomically(module.params["dest"], text.encode(), 0o600, 0, 0)
    module.exit_json(changed=False, fingerprint=document, drift=as_rows(drift(document)))


if __name__ == "__main__":
    main()
