"""The gateway of the scenario, with a stub engine behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.jwt_issuer import Issuer

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
STUB = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/support/stub_chat_engine.py")


@pytest.fixture(scope="session")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return str(document["all"]["hosts"]["molecule-gateway-jwt"]["ansible_host"])


@pytest.fixture(scope="module", autouse=True)
def engine(host: Host) -> Iterator[None]:
    """A stub engine behind both models."""
    host.check_output("systemd-run --quiet --collect --unit stub-engine python3 -c %s 8101", STUB.read_text())
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :8101 && exit 0; sleep 0.1; done; exit 1")
    yield
    host.check_output("systemctl stop stub-engine")


@pytest.fixture(scope="session")
def remote() -> Issuer:
    return Issuer.load(FOLDER, "remote")


@pytest.fixture(scope="session")
def idp() -> Issuer:
    return Issuer.load(FOLDER, "idp")


@pytest.fixture(scope="session")
def other() -> Issuer:
    return Issuer.load(FOLDER, "other")
