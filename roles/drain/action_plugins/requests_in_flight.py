"""Action: looks at a host again and again until nothing runs there, and says each time what still does.

The looking is the module of the same name. It is started anew each time, so that nothing stays behind on the host when
the control process ends, and so that there is something to show: a module cannot print.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# A request may be on its way from the gateway to an engine that has not counted it yet.
_QUIET_LOOKS = 2


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Waits; see the module's text. Takes the module's arguments, and `limit` and `interval` in seconds."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {idle, busy, waited}; an answer that is not idle after the limit is no failure by itself."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        limit, interval = float(arguments.pop("limit", 0)), float(arguments.pop("interval", 5))
        host = (task_vars or {}).get("inventory_hostname", "")
        start, quiet = time.monotonic(), 0
        while True:
            look: dict[str, Any] = self._execute_module(
                module_name="requests_in_flight", module_args=arguments, task_vars=task_vars, tmp=tmp
            )
            waited = time.monotonic() - start
            if "busy" not in look:
                return result | look
            busy = [str(line) for line in look["busy"]]
            quiet = 0 if busy else quiet + 1
            if quiet == _QUIET_LOOKS or self._task.check_mode or (busy and waited >= limit):
                return result | {"changed": False, "idle": not busy, "busy": busy, "waited": round(waited, 1)}
            if busy:
                Display().display(f"{host}: {'; '.join(busy)}; waited {waited:.0f} of at most {limit:.0f} s")
            time.sleep(min(interval, max(1.0, limit - waited)) if busy else 1.0)
