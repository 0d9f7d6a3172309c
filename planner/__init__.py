"""The planner: pure decisions for one host, from inventory, lock and facts. No I/O, no Ansible.

Use `evaluate(document)` to get a plan with its problems and warnings, or `plan(document)` to get the plan or a
`PlanRefused`. The document's shape is described in `planner.document`, the plan's in `planner.core`.
"""

from planner.core import PlanRefused, evaluate, plan
from planner.problems import Problem

__all__ = ["PlanRefused", "Problem", "evaluate", "plan"]
