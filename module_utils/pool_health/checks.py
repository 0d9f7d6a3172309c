# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the pools' health. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

from .checking import STATE
from .judging import loaded

Check = Dict[str, Any]
Answer = Tuple[bool, str]


def _pool_health(check: Check) -> Answer:
    """Whether the servers were asked of late, and all of them take requests. A gateway may do without."""
    if not Path(check["wanted"]).exists():
        return True, "not wanted (gateway_health_checks)"
    path = Path(check["state_dir"], STATE)
    try:
        state = json.loads(path.read_text())
        seconds = time.time() - state["run"]
        pools = loaded(state["pools"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return False, f"{path} cannot be read ({error}): the servers were never asked"
    bad = [
        f"{server} is out since {one.since}: {one.why}" if one.out else f"{server} is the last one, but: {one.why}"
        for servers in pools.values()
        for server, one in servers.items()
        if one.out or one.kept
    ]
    if bad:
        return False, "; ".join(bad)
    return seconds <= check["max_seconds"], f"{sum(map(len, pools.values()))} servers answered {seconds:.0f} s ago"


POOL_KINDS: Dict[str, Callable[[Check], Answer]] = {"pool_health": _pool_health}
