"""What a run costs that has nothing to change."""

from __future__ import annotations

import statistics

import pytest

from cli.play import run_playbook
from tests.bench.results import record
from tests.support.site import Site

pytestmark = pytest.mark.slow
ROUNDS = 3


def test_converged_run(bench_site: Site) -> None:
    results = [run_playbook("site", ["inventories/demo"]) for _ in range(ROUNDS)]
    counts = results[-1].counts[bench_site.main]
    record(
        "converged",
        {
            "wall_seconds": [round(result.wall, 1) for result in results],
            "wall_seconds_median": round(statistics.median(result.wall for result in results), 1),
            **counts.document(),
            "phases": {phase.name: round(phase.seconds, 1) for phase in results[-1].phases},
        },
    )
    assert all(result.ok for result in results)
    assert counts.changed == 0
