"""Action that writes the site's bill of materials on the control host, from the plans of all hosts; no connection.

Hosts without a plan in this run (outside --limit, or down) would be left out of it, so then the file stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner.plain import plain
from provenance import signatures
from provenance.bom import Known, bom
from provenance.files import put, text


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core publishes no types
    """Writes `dest` when its content is another; arguments: dest, site, hosts."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {changed, dest}."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = plain(self._task.args)
        hostvars = (task_vars or {})["hostvars"]
        hosts = sorted(set(arguments["hosts"]))
        absent = [host for host in hosts if "deployment_plan" not in hostvars[host]]
        if absent:
            why = f"no bill of materials: this run has no plan of {', '.join(absent)} (outside --limit, or down)"
            return result | {"changed": False, "skipped": True, "warnings": [why]}
        plans = {host: plain(hostvars[host]["deployment_plan"]) for host in hosts}
        hubs: dict[str, str] = {}
        signers: dict[str, str] = {}
        for host in hosts:
            values = {name: plain(hostvars[host].get(name)) for name in signatures.VARIABLES}
            folder = f"{hostvars[host].get('inventory_dir')}/signatures"
            signers |= signatures.judge(values, folder, lambda given: text(self._loader, given)).signers
            models = values["redoubt_models"] or []
            hubs |= {model["name"]: hub for model in models if (hub := (model.get("source") or {}).get("hub"))}
        try:
            document = bom(str(arguments["site"]), plans, Known(hubs, signers))
        except ValueError as error:
            raise AnsibleError(f"no bill of materials: {error}") from None
        dest = Path(arguments["dest"])
        return result | {"changed": put(dest, document, check=self._task.check_mode), "dest": str(dest)}
