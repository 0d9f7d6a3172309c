"""Fixtures for the tests of every scenario."""

from __future__ import annotations

import pytest

from tests.support.plays import Play, run_play


@pytest.fixture
def play() -> Play:
    """Run the scenario's converge.yml again: `play(check=True, docker_nofile=4096)` gives a Run."""
    return run_play
