"""One host's run of an exchange, as a process of its own: python -m tests.support.fanout_child < order.json.

`order`: name, peers (name: address), port, root (the host's folder), models, origin; also patience, limits, piece.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ansible.module_utils

if __name__ == "__main__":
    ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[2] / "module_utils"))

from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fanout.peers import Patience, make_fanout
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.web import Web


def bring(order: dict[str, Any]) -> dict[str, Any]:
    """Bring the models; returns what the run says."""
    root = Path(order["root"])
    options = {"name": order["name"], "port": order["port"], "peers": order["peers"], "folder": root / "run"}
    patience = Patience(**order.get("patience", {}))
    fanout = make_fanout(options, 20, patience)
    how = How(Limits(**order.get("limits", {})), order.get("piece", 0), fanout)
    store = Store(root / "models", root / "state")
    settings = Settings(how=how, progress_file=root / "progress.json", workers=2)
    try:
        _, outcomes = present(store, parse_models(order["models"]), [Web(order["origin"])], settings)
    except Refusal as refusal:
        return {"refused": str(refusal)}
    return {
        "states": [outcome.state for outcome in outcomes],
        "bytes": sum(outcome.bytes_copied for outcome in outcomes),
        "from_peers": fanout.bytes if fanout else 0,
        "warnings": fanout.warnings if fanout else [],
    }


if __name__ == "__main__":
    json.dump(bring(json.load(sys.stdin)), sys.stdout)
