# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the roles on top of the driver: what the container toolkit needs, and what stands against it.

The decisions are the planner's; see planner.container_toolkit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner import container_toolkit
from planner.problems import Problems


def container_toolkit_refusal(facts: Mapping[str, Any], version: str, later: bool) -> list[str]:
    """Why this version cannot work on a host with these facts (redoubt_gpu), one line each; empty when it can.

    later: driver and engine are yet to be set up (check mode on an empty host), so only what is there is judged.
    """
    problems = Problems()
    container_toolkit.check(version, facts, problems, later=later)
    return [problem.text() for problem in problems.found]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "container_toolkit_engines": container_toolkit.engines,
            "container_toolkit_packages": container_toolkit.packages,
            "container_toolkit_refusal": container_toolkit_refusal,
        }
