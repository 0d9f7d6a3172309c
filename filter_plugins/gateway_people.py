# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the gateway role about pages for people: refuse bad ones, and lay out good ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Ansible loads this file on its own; the project's packages lie beside filter_plugins.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from policy.people import MOST_PAGES, people_problems, people_rows


def people_files(rows: list[dict[str, Any]], group: str) -> list[dict[str, str]]:
    """Return the files of passwords, for Nginx's workers (of that group) to read."""
    return [
        {"path": f"/etc/nginx/{row['file']}", "content": row["passwords"], "mode": "0640", "group": group}
        for row in rows
        if "file" in row
    ]


def people_traces(rows: list[dict[str, Any]]) -> list[str]:
    """Return the files of passwords that pages of before may have left."""
    kept = {row["file"] for row in rows if "file" in row}
    every = [f"redoubt_people_{index}.htpasswd" for index in range(MOST_PAGES)]
    return [f"/etc/nginx/{name}" for name in every if name not in kept]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {
            "gateway_people_problems": people_problems,
            "gateway_people_rows": people_rows,
            "gateway_people_files": people_files,
            "gateway_people_traces": people_traces,
        }
