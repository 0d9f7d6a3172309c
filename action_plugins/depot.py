"""Action of the module `depot`: reading every byte takes long, and says how far it is, as the weights do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from action_plugins import weights


class ActionModule(weights.ActionModule):
    """Runs the module and shows its progress."""

    what = "depot"
    default_file = "/var/lib/redoubt/progress/depot.json"
