"""Fetches files in a process of its own, so that it can be killed: python -m tests.support.fetch_child < order.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[2] / "module_utils"))

from ansible.module_utils.fetch.engine import fetch  # noqa: E402 - the path had to be set before
from ansible.module_utils.fetch.job import Job  # noqa: E402 - the path had to be set before
from ansible.module_utils.fetch.line import Limits  # noqa: E402 - the path had to be set before
from ansible.module_utils.fetch.sources import Item  # noqa: E402 - the path had to be set before
from ansible.module_utils.fetch.web import Web  # noqa: E402 - the path had to be set before


def main() -> None:
    """Read {items, base, folder, piece, limits} and fetch; print {path: {problems, received, reused}}."""
    order = json.load(sys.stdin)
    folder = Path(order["folder"])
    source = Web(order["base"])
    jobs = [Job(Item(**item), folder / item["sha256"], [source], order["piece"]) for item in order["items"]]
    fetch(jobs, Limits(**order["limits"]), lambda count, label: None, lambda job: None)
    figures = {
        job.item.path: {"problems": job.problems, "received": job.received, "reused": job.reused} for job in jobs
    }
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
