# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the cuda_toolkit role; the decisions are the planner's, see planner.cuda_toolkit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner import cuda_toolkit
from planner.problems import Problems


def cuda_toolkit_refusal(versions: Sequence[str], default: str, facts: Mapping[str, Any]) -> list[str]:
    """Why these toolkits cannot be installed, one line each; empty when they can."""
    problems = Problems()
    cuda_toolkit.check(versions, default, facts, problems)
    return [problem.text() for problem in problems.found]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "cuda_toolkit_folder": cuda_toolkit.folder,
            "cuda_toolkit_packages": cuda_toolkit.packages,
            "cuda_toolkit_refusal": cuda_toolkit_refusal,
        }
