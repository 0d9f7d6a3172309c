# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the audit log. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

from .sealing import STATUS

Check = Dict[str, Any]
Answer = Tuple[bool, str]


def _audit(check: Check) -> Answer:
    """Whether the log was sealed of late, and nothing was wrong with it then."""
    path = Path(check["state_dir"], STATUS)
    try:
        status = json.loads(path.read_text())
        minutes = (time.time() - status["run"]) / 60
        problems = [str(problem) for problem in status["problems"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"{path} cannot be read ({error}): the audit log was never sealed"
    if problems:
        return False, "; ".join(problems)
    return minutes <= check["max_minutes"], f"sealed {minutes:.0f} minutes ago, seal {status['seal']}"


AUDIT_KINDS: Dict[str, Callable[[Check], Answer]] = {"audit": _audit}
