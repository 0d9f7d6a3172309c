# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Action platform_facts: give a host the facts of a platform, without asking it, and forget what was wished on another.

Argument: platform, such as debian-13-amd64. Facts that say nothing of the platform (GPUs) stay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.closure.platforms import UnknownPlatform, facts, parse


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Sets the facts."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the facts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            platform = parse(str(self._task.args.get("platform") or ""))
        except UnknownPlatform as error:
            return result | {"failed": True, "msg": f"redoubt_platforms: {error}"}
        return result | {"changed": False, "ansible_facts": facts(platform) | {"redoubt_wishes": {}}}
