"""Filters of the plan: the decisions for one host, and the same as lines for an operator.

The planner is a plain package beside this folder, so that it can be used and tested without Ansible.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner import PlanRefused, plan
from planner.table import lines


def deployment_plan(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan of `document["host"]` (shapes: planner.document, planner.core).

    Raises ValueError with every problem at once when the document cannot be planned.
    """
    try:
        return plan(document)
    except PlanRefused as refused:
        raise ValueError(str(refused)) from None


def deployment_plan_lines(plan_of_host: Mapping[str, Any]) -> list[str]:
    """Return a plan as short lines for an operator."""
    return lines(plan_of_host)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"deployment_plan": deployment_plan, "deployment_plan_lines": deployment_plan_lines}
