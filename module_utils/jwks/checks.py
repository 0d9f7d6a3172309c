# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the keys of issuers that a gateway fetches. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

from .fetching import STATUS

Check = Dict[str, Any]
Answer = Tuple[bool, str]


def _jwks(check: Check) -> Answer:
    """Whether each issuer's keys were had of late."""
    path = Path(check["state_dir"], STATUS)
    try:
        issuers = json.loads(path.read_text(encoding="utf-8"))["issuers"]
        ages = {name: (time.time() - row["fetched"]) / 60 for name, row in issuers.items()}
        stale = [name for name, age in ages.items() if age > check["max_minutes"]]
        told = [
            f"{name}: {'never' if not issuers[name]['fetched'] else f'{ages[name]:.0f} minutes ago'}" for name in ages
        ]
        problems = [issuers[name]["problem"] for name in stale if issuers[name]["problem"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return False, f"{path} cannot be read ({error}): no issuer's keys were ever fetched"
    lacking = sorted(set(check["issuers"]) - set(ages))
    if lacking:
        return False, f"never asked: {', '.join(lacking)}"
    return not stale, "keys were had: " + "; ".join(told + problems)


JWKS_KINDS: Dict[str, Callable[[Check], Answer]] = {"jwks": _jwks}
