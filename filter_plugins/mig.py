# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the nvidia_mig role; the decisions are the planner's, see planner.mig."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.gpu.pci import usable
from planner import mig
from planner.problems import Problems


def mig_refusal(layout: object, facts: Mapping[str, Any]) -> list[str]:
    """Why a host with these facts (redoubt_gpu) cannot be divided so, one line each; empty when it can."""
    problems = Problems()
    mig.check(mig.parse(layout, problems), usable(facts["gpus"]), problems)
    return [problem.text() for problem in problems.found]


def mig_parts(layout: object, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return mig-parted's list: {devices: [index], mig-enabled, mig-devices} for each GPU that can be used."""
    return mig.parts(mig.parse(layout, Problems()), len(usable(facts["gpus"])))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"mig_parts": mig_parts, "mig_refusal": mig_refusal}
