"""Action of the module `conversion`: runs it, and meanwhile says how far each host is, every five seconds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from action_plugins import weights


class ActionModule(weights.ActionModule):
    """Runs the module and shows its progress."""

    what = "conversion"
    default_file = "/var/lib/redoubt/progress/conversion.json"

    def line(self, document: Mapping[str, Any]) -> str:
        """Say how long it works, how much it wrote, and its last word."""
        parts = f"{weights.clock(document['seconds'])}, {weights.size(document['done_bytes'])} written"
        return f"{document['item']}: {parts} ({document['line'].strip()[-100:] or 'no word yet'})"
