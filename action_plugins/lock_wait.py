"""Action of the modules that wait for another run's lock (module_utils/run_lock.py): says whom they wait for.

A module cannot print. So it waits for a few seconds only, and is started again until it has the lock or the time that
the task allows is over.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.run_lock import PATIENCE

# Seconds that the module itself waits, and so the longest silence.
_LOOK = 4


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Runs the module of the task's name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module returned at last."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        patience = float(self._task.args.get("lock_timeout", PATIENCE))
        host = (task_vars or {}).get("inventory_hostname", "")
        start = time.monotonic()
        while True:
            left = patience - (time.monotonic() - start)
            answer: dict[str, Any] = self._execute_module(
                module_args=self._task.args | {"lock_timeout": int(max(0, min(_LOOK, left)))},
                task_vars=task_vars,
            )
            waited = time.monotonic() - start
            holder = answer.get("lock_holder")
            if not holder:
                return result | answer
            if waited >= patience:
                return result | answer | {"msg": f"{answer['msg']} (waited {waited:.0f} s)"}
            Display().display(f"{host}: waits for another run ({holder}); {waited:.0f} of at most {patience:.0f} s")
