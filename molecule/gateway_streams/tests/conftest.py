"""The gateway of the scenario, with stub engines behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.stub_engines import Engines

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(scope="session")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return str(document["all"]["hosts"]["molecule-gateway-streams"]["ansible_host"])


@pytest.fixture
def engines(host: Host) -> Iterator[Engines]:
    """All engines of converge.yml, fresh."""
    # A gateway that knows nothing of what engines of another test did: it avoids for 10 s those that failed.
    host.check_output(
        "before=$(pgrep -f '^nginx: worker process$'); systemctl reload nginx; for i in $(seq 100); do sleep 0.1;"
        ' now=$(pgrep -f \'^nginx: worker process$\') && ! echo "$now" | grep -qxF "$before" && exit 0; done; exit 1'
    )
    made = Engines(host, range(8101, 8108))
    made.start()
    yield made
    made.stop()
