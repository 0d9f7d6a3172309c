"""Lab hosts for the end-to-end tests: one that becomes the site, one that is a stranger in the same network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab import gpus, hosts, images, inventory
from lab.report import PlainReport
from tests.support import gpu_variables
from tests.support.site import REPOSITORY, Site

SERVER = "e2e1"
STRANGER = "e2e2"
VICTIM = "e2e3"
GPU_SERVER = "e2e5"


@contextmanager
def _empty_site(folder: str, main: str, *others: str) -> Iterator[Site]:
    """A site on empty hosts; they are removed at the end unless REDOUBT_KEEP is set, then they are reused too."""
    report = PlainReport()
    images.build(report, images.TESTS)
    keep = bool(os.environ.get("REDOUBT_KEEP"))
    names = (main, *others)
    try:
        if not keep:
            for name in names:
                hosts.down(name)
        made = {name: hosts.up(name, report=report) for name in names}
        place = Site(REPOSITORY / ".runs" / folder, made, main)
        place.write(inventory.document(made.values())["_meta"]["hostvars"])
        yield place
    finally:
        if not keep:
            for name in names:
                hosts.down(name)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The site that most tests look at."""
    with _empty_site("e2e", SERVER, STRANGER) as place:
        yield place


@pytest.fixture(scope="module")
def broken_site() -> Iterator[Site]:
    """A site whose installation is cut off again and again."""
    with _empty_site("e2e-killed", VICTIM) as place:
        yield place


@pytest.fixture(scope="module")
def gpu_site() -> Iterator[Site]:
    """One server with eight (stub) H100 that does everything, as inventories/single describes it."""
    with _empty_site("e2e-gpu", GPU_SERVER) as place:
        gpus.fit(GPU_SERVER, gpu_variables.HARDWARE, PlainReport())
        more = gpu_variables.variables(place.address, place.key, str(place.ca_file))
        place.write(inventory.document(place.hosts.values())["_meta"]["hostvars"], "single", more)
        yield place
