"""Action that says which platforms a lock is to have: those that are written, else those of the lock that is there.

Arguments: wanted, folder. Returns {platforms, machines: [linux/amd64], pythons: [{python, platform}]}; no connection.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))

from locks import folder as files
from module_utils.closure.platforms import MACHINES, UnknownPlatform, name_of, parse
from planner.plain import plain

ROOT = Path(__file__).resolve().parents[1]

# The Python of a control host on each platform, and the newest wheels that its C library runs.
# EL has 3.9, which is too old.
PYTHONS = {
    "debian-12": ("3.11", "manylinux_2_36"),
    "debian-13": ("3.13", "manylinux_2_41"),
    "ubuntu-24.04": ("3.12", "manylinux_2_39"),
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Names the platforms."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the platforms."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = plain(self._task.args)
        variables = task_vars or {}
        asked = plain(variables.get("ansible_facts") or {})
        names = list(arguments.get("wanted") or ())
        names = names or files.platforms(ROOT / str(arguments.get("folder") or "lock"))
        names = sorted(set(names)) or [name for name in [name_of(asked)] if name]
        if not names:
            why = "redoubt_platforms is empty, and there is neither a lock nor a host that was asked"
            fix = 'name the platforms of the hosts: -e \'{"redoubt_platforms": ["debian-13-amd64"]}\''
            return result | {"failed": True, "msg": f"{why}. Fix: {fix}"}
        try:
            parsed = [parse(name) for name in names]
        except UnknownPlatform as error:
            return result | {"failed": True, "msg": f"redoubt_platforms: {error}"}
        pythons = []
        for one in parsed:
            python, newest = PYTHONS.get(f"{one.word}-{one.version}", ("", ""))
            target = {"python": python, "platform": f"{newest}_{MACHINES[one.architecture]}"}
            if python and target not in pythons:
                pythons.append(target)
        machines = sorted({f"linux/{one.architecture}" for one in parsed})
        return result | {"changed": False, "platforms": names, "machines": machines, "pythons": pythons}
