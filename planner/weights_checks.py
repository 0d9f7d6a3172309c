"""What the doctor looks at on a host that has models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATE = "/var/lib/redoubt/weights"


def model(engine: Mapping[str, Any], manifests: Mapping[str, Any], *, deep: bool) -> dict[str, Any]:
    """Return the check of one engine's files against the lock; `deep` reads every byte of them."""
    weights = engine["weights"]
    return {
        "id": f"weights.{weights['name']}",
        "kind": "weights",
        "root": weights["path"].rsplit("/", 2)[0],
        "stamps": STATE,
        "model": manifests[weights["name"]],
        "deep": deep,
        "remedy": "Run the weights playbook: it fetches what is damaged again and proves it.",
    }


def proofs() -> dict[str, Any]:
    """Return the check of what the store's inventory knows of damage and of the age of proofs."""
    return {
        "id": "weights.proofs",
        "kind": "weights_proofs",
        "state_dir": STATE,
        "timer": "/etc/systemd/system/redoubt-weights-reproof.timer",
        "max_days": 40,
        # The deep look at the models writes down what it finds.
        "last": True,
        "remedy": "Run the weights playbook: it mends what is named, and installs the timer that proves the rest"
        " ('systemctl status redoubt-weights-reproof.timer').",
    }
