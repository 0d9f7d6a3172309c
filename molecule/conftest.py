"""Fixtures for the tests of every scenario."""

from __future__ import annotations

import pytest

from cli.shared_code import share
from tests.support.plays import Play, run_play

share()  # a scenario's tests may look with the same code as the module does


@pytest.fixture
def play() -> Play:
    """Run the scenario's converge.yml again: `play(check=True, docker_nofile=4096)` gives a Run."""
    return run_play
