"""What the depot lacks is named - artefact, lock, the command that brings it - and never a silent name server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.airgap import FAR_DEPOT, NAME, PLATFORM, GapSite

VIEW = f"{FAR_DEPOT}/sites/{NAME}/"
MODELS = "/srv/redoubt/models"
PACKAGE = "logrotate"
FILE = "tokenizer.json"
#: What a resolver, a socket or Python says when nobody has thought of it.
UNEXPLAINED = ("name resolution", "Could not resolve", "getaddrinfo", "Traceback", "timed out")


@contextmanager
def hidden(gap: GapSite, pattern: str) -> Iterator[str]:
    """Take a file out of all views of the far depot, for the time of a block; its name."""
    find = f"find {VIEW} -type f -path '{pattern}'"
    path = gap.on(gap.control.name, f"{find} | head -n 1").strip()
    assert path, f"the depot has no {pattern}"
    views = gap.on(gap.control.name, f"find {VIEW} -samefile {path}").split()
    for view in views:
        gap.on(gap.control.name, f"mv {view} {view}.hidden")
    try:
        yield path.rpartition("/")[2]
    finally:
        for view in views:
            gap.on(gap.control.name, f"mv {view}.hidden {view}")


@pytest.mark.parametrize(
    ("pattern", "playbook", "removal", "words"),
    [
        (
            f"*/{PACKAGE}_*.deb",
            "site",
            f"dpkg --purge --force-depends {PACKAGE}",
            [f"{PACKAGE}_", f"lock/platforms/{PLATFORM}.yml"],
        ),
        (
            "*/alertmanager/manifests/*[0-9a-f]",
            "host",
            "docker rm -f redoubt-alertmanager; docker image rm -f $(docker image ls -q redoubt.lab/alertmanager)",
            ["alertmanager", "lock/images.yml"],
        ),
        (
            f"*/models/*/{FILE}",
            "weights",
            f"find {MODELS} -samefile $(find {MODELS} -name {FILE} | head -n 1) -exec rm -f '{{}}' +",
            [FILE, "lock/models.yml"],
        ),
    ],
    ids=["package", "image", "model file"],
)
def test_what_the_depot_lacks_is_named(
    gap: GapSite, pattern: str, playbook: str, removal: str, words: list[str]
) -> None:
    with hidden(gap, pattern):
        gap.on(gap.main, removal)
        run = gap.far_play(playbook)
    assert run.status != 0, run.output[-6000:]
    for said in (*words, "./redoubt play gather", "./redoubt bundle import"):
        assert said in run.output, f"{said}: {run.output[-6000:]}"
    for unexplained in UNEXPLAINED:
        assert unexplained not in run.output, run.output[-6000:]


def test_once_it_is_there_the_site_is_whole_again(gap: GapSite) -> None:
    run = gap.far_play("site")
    assert run.status == 0, run.output[-6000:]
    assert "Paris" in gap.answered(60)
    assert gap.watch is not None
    assert gap.watch.count() == 0, gap.watch.report()
    assert gap.watch.attempts() == []
