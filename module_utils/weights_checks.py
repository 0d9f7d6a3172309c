# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the weights. Standard library only, Python 3.9+."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

from ansible.module_utils.artifacts.errors import Refusal, plural
from ansible.module_utils.artifacts.inventory import read_inventory
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import verified
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store

Check = Dict[str, Any]
Answer = Tuple[bool, str]


def _weights(check: Check) -> Answer:
    row = check["model"]
    try:
        # Whether pickles and programs are wanted was decided earlier.
        models = parse_models([row], allow_pickle=[row["name"]], allow_code=[row["name"]])
    except Refusal as refusal:
        return False, str(refusal)
    settings = Settings(check=check.get("check_mode", False))
    verdict = verified(Store(Path(check["root"]), Path(check["stamps"])), models, settings, check["deep"])[0]
    if not verdict["ok"]:
        return False, "; ".join(fault["text"] for fault in verdict["faults"])
    return True, f"{verdict['files']} files in {verdict['path']}, {verdict['bytes_hashed']:,} bytes read and proved"


def _proofs(check: Check) -> Answer:
    """Whether the inventory of the store knows of damage, and the proofs are not too old for the timer to work."""
    found = read_inventory(Path(check["state_dir"]))
    if not found:
        return False, f"{check['state_dir']}/inventory.json is not there, or cannot be read"
    rows = [row for revisions in found["models"].values() for row in revisions.values()]
    damaged = [f"{row['path']}/{path}" for row in rows for path in row["damaged"]]
    if damaged:
        return False, f"known to be damaged: {', '.join(damaged)}"
    text = f"{plural(len(rows), 'revision')}, {found['bytes']:,} bytes"
    if found["oldest_proof"] is None:
        return not rows, f"{text}, nothing proved"
    days = (time.time() - found["oldest_proof"]) / 86400
    text += f", the oldest proof is {days:.0f} days old"
    if not Path(check["timer"]).exists():
        return True, f"{text}; no timer proves them again (weights_reproof_calendar)"
    return days <= check["max_days"], text


WEIGHTS_KINDS: Dict[str, Callable[[Check], Answer]] = {"weights": _weights, "weights_proofs": _proofs}
