# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Marks of drained hosts, as a host keeps them: {name: {since, by, reason}}. Standard library only, Python 3.9+.

The drained host keeps its own mark (so that nobody starts its engines again), and each gateway keeps those of all
drained hosts: it is asked whenever its configuration is made, also when the drained host is down or outside --limit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict

from ansible.module_utils.config_files import write_atomically

FILE = "/var/lib/redoubt/drained.json"
Marks = Dict[str, Dict[str, str]]


def read_marks(path: str = FILE) -> Marks:
    """The marks; {} when there is no file. Raises ValueError, with what to do, when the file is damaged."""
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        return {}
    try:
        marks = json.loads(text)
        return {name: {key: str(mark[key]) for key in ("since", "by", "reason")} for name, mark in marks.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not tell which hosts are drained ({type(error).__name__}: {error});"
            " remove it and drain those hosts again"
        ) from error


def changed_marks(marks: Marks, host: str, mark: dict[str, str] | None) -> Marks:
    """The marks after `host` was drained (a first mark stays as it is) or, with None, returned."""
    others = {name: known for name, known in marks.items() if name != host}
    return others if mark is None else {**others, host: marks.get(host, mark)}


def write_marks(marks: Marks, path: str = FILE) -> None:
    """Write the marks at once; without any the file goes."""
    if not marks:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_atomically(path, (json.dumps(marks, indent=2, sort_keys=True) + "\n").encode(), 0o644, 0, 0)
