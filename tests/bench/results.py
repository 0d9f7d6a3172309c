"""Figures go to .runs/bench.json; docs/benchmarks.md is written from there by hand, with the machine named."""

from __future__ import annotations

import json
from typing import Any

from tests.support.site import REPOSITORY

FILE = REPOSITORY / ".runs/bench.json"


def record(name: str, figures: dict[str, Any]) -> None:
    """Keep the figures of one benchmark and print them."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known[name] = figures
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps({name: figures}, indent=2))
