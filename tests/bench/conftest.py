"""The site that is measured: the demo's own host, made ready first if it is not."""

from __future__ import annotations

import subprocess

import pytest

from lab import hosts
from tests.support.site import REPOSITORY, Site

DEMO = "demo1"


@pytest.fixture(scope="session")
def bench_site() -> Site:
    """The running demo."""
    subprocess.run([REPOSITORY / "redoubt", "demo"], cwd=REPOSITORY, check=True, timeout=1800)
    site = Site(REPOSITORY / ".cache", {DEMO: hosts.up(DEMO)}, DEMO)
    site.key = (REPOSITORY / ".cache/demo/keys/demo.key").read_text().strip()
    return site
