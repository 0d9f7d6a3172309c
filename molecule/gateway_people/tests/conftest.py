"""The gateway of the scenario, with a stub in the place of pages and engines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
STUB = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/support/stub_engine.py")


@pytest.fixture(scope="session")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return str(document["all"]["hosts"]["molecule-gateway-people"]["ansible_host"])


@pytest.fixture(scope="module", autouse=True)
def page(host: Host) -> Iterator[None]:
    host.check_output("systemd-run --quiet --collect --unit stub-engine python3 -c %s 8101", STUB.read_text())
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :8101 && exit 0; sleep 0.1; done; exit 1")
    yield
    host.check_output("systemctl stop stub-engine")
