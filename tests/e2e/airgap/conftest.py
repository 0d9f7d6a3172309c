"""Two bare hosts behind an air gap, and a watch that counts whatever wants out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.airgap import GapSite, opened
from tests.support.site import REPOSITORY


@pytest.fixture(scope="session")
def gap() -> Iterator[GapSite]:
    """The site: the connected side is this machine; the far side has nothing but Debian, and the medium."""
    folder = REPOSITORY / ".runs" / "e2e-airgap"
    keep = bool(os.environ.get("REDOUBT_KEEP"))
    with opened("e2e-gap-control", "e2e-gap-target", folder, keep=keep) as site:
        yield site
