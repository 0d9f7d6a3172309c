# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Action of the module package_set: installs or, when the lock is made, only notes what would be installed.

So the tasks that install are the one place that says what a role wants; nothing has to agree with a second list.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

# Set by playbooks/tasks/wishes.yml for the roles that it includes; nothing is installed then, no host is asked.
ONLY_WISHES = "__package_wishes_only"
# The fact that holds what was noted for a host: {role: {packages: [...], repositories: [...], streams: [...]}}.
FACT = "redoubt_wishes"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Runs the module, or notes the wish."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module returned, or the wishes noted so far as facts."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        if not variables.get(ONLY_WISHES):
            answer: dict[str, Any] = self._execute_module(task_vars=task_vars)
            return result | answer
        role = self._task._role.get_name(include_role_fqcn=False) if self._task._role else "site"
        noted = dict((variables.get("ansible_facts") or {}).get(FACT) or {})
        noted[role] = merged(noted.get(role) or {}, self._task.args)
        return result | {"changed": False, "ansible_facts": {FACT: noted}}


def merged(before: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """A role's wishes with those of one more of its tasks."""
    packages = {*before.get("packages", ()), *(arguments.get("first") or ()), *(arguments.get("packages") or ())}
    repositories = [*before.get("repositories", ())]
    one = arguments.get("repository")
    if one and one not in repositories:
        repositories.append(one)
    streams = {*before.get("streams", ()), *filter(None, [arguments.get("stream")])}
    return {"packages": sorted(map(str, packages)), "repositories": repositories, "streams": sorted(map(str, streams))}
