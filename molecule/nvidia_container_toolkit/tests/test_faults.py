"""An engine that is too old for what the toolkit writes: refused, with the two ways out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from planner.container_toolkit import PACKAGES
from tests.support.plays import Play

#: Found before /usr/bin/docker by everybody who asks for the engine's version; the engine itself is the real one.
STUB = "/usr/local/bin/docker"


@pytest.fixture
def old_engine(host: Host) -> Iterator[None]:
    """A stub of the client that says of the engine that it is 25.0.5, the last one without CDI 0.7."""
    script = '#!/bin/sh\n# A stub: another version.\n/usr/bin/docker "$@" | sed "s/26[.]1[.][0-9][^\\"]*/25.0.5/"\n'
    host.check_output("printf %%s %s > %s && chmod 755 %s", script, STUB, STUB)
    yield
    host.check_output("rm %s", STUB)


@pytest.mark.usefixtures("old_engine")
def test_engine_too_old_for_cdi_07_is_refused(host: Host, play: Play) -> None:
    assert "25.0.5" in host.check_output("docker version --format '{{.Server.Version}}'")
    before = {str(host.package(name).version) for name in PACKAGES}
    run = play("toolkit.yml")
    assert run.status != 0
    assert run.changed == 0
    assert "Refused, and nothing was changed" in run.words
    assert 'Docker Engine of the host = \\"25.0.5\\": toolkit 1.20.0 writes CDI 0.7.0, which Docker' in run.words
    assert "reads from 26.1 on" in run.words
    assert "docker_source: docker" in run.words
    assert "nvidia_container_toolkit_version: 1.18.2" in run.words
    assert {str(host.package(name).version) for name in PACKAGES} == before
