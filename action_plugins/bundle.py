"""Action of the module bundle: what lock_wait.py says."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from action_plugins.lock_wait import ActionModule

__all__ = ["ActionModule"]
