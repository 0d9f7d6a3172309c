# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filter `nginx_policy`: what in a rendered Nginx configuration breaks the gateway's policy.

The policy is a plain package beside this folder, so that it can be used and tested without Ansible.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from policy import breaches


def nginx_policy(
    text: str,
    routes: list[dict[str, Any]],
    models: list[dict[str, Any]],
    allowed_cidrs: list[str],
    includes: list[str],
    preloaded: dict[str, str] | None = None,
    people: Sequence[dict[str, Any]] = (),
    pools: dict[str, str] | None = None,
) -> list[str]:
    """Return every breach with its line, none when all is well (arguments: policy.rules.breaches)."""
    return breaches(text, routes, models, allowed_cidrs, includes, preloaded, people, pools)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"nginx_policy": nginx_policy}
