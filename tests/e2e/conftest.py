"""Lab hosts for the end-to-end tests: one that becomes the site, one that is a stranger in the same network."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import hosts, images, inventory
from lab.report import PlainReport
from tests.support.site import REPOSITORY, Site

SERVER = "e2e1"
STRANGER = "e2e2"


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A site on an empty host; removed at the end unless REDOUBT_KEEP is set."""
    report = PlainReport()
    images.build(report)
    keep = bool(os.environ.get("REDOUBT_KEEP"))
    try:
        if not keep:
            for name in (SERVER, STRANGER):
                hosts.down(name)
        made = {name: hosts.up(name, report=report) for name in (SERVER, STRANGER)}
        place = Site(REPOSITORY / ".runs/e2e", made, SERVER)
        place.write(inventory.document(made.values())["_meta"]["hostvars"])
        yield place
    finally:
        if not keep:
            for name in (SERVER, STRANGER):
                hosts.down(name)
