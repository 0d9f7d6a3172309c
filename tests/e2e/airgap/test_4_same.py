"""A host installed with the network, from the same wishes and lock, is the same as the one behind the gap."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import hosts, images, inventory
from lab.report import PlainReport
from tests.support.airgap import FAR_SITE, GapSite
from tests.support.site import Run

NAME = "e2e-gap-online"
EDITED = "/etc/redoubt/monitoring/blackbox/blackbox.yml"
PACKAGE = r"""
mkdir -p /tmp/extra/DEBIAN
printf 'Package: redoubt-extra\nVersion: 1.0\nArchitecture: all\n' > /tmp/extra/DEBIAN/control
printf 'Maintainer: x <x@example.org>\nDescription: nothing\n' >> /tmp/extra/DEBIAN/control
dpkg-deb --build /tmp/extra /tmp/extra.deb && dpkg -i /tmp/extra.deb
"""
# What is done to the host with the network: section, name and field that the comparison then names.
SEEDED: dict[str, tuple[str, tuple[str, str, str]]] = {
    "edited file": (f"echo '# mine' >> {EDITED}", ("files", EDITED, "content")),
    "extra package": (PACKAGE, ("packages", "redoubt-extra", "")),
    "another sysctl": ("sysctl -w net.core.somaxconn=77", ("kernel", "net.core.somaxconn", "value")),
}


class Online:
    """The host with the network, beside the site behind the gap."""

    def __init__(self, gap: GapSite, host: hosts.Host) -> None:
        known = inventory.document([gap.control, host])["_meta"]["hostvars"]
        self.gap = gap
        self.folder = gap.write_online(host, known, images.read_lock().document())
        gap.hosts[NAME] = host

    def play(self, playbook: str) -> Run:
        """Run a playbook for this host alone; the control host behind the gap is not to be reached from here."""
        limit = ("--limit", f"{NAME},localhost")
        return self.gap.near("play", playbook, "-i", str(self.folder / "hosts.json"), *limit)

    def verify(self) -> Path:
        """Take the host's fingerprint. The verdict is not ok, for this site's other host cannot be asked."""
        path = self.folder / f"{NAME}.json"
        path.unlink(missing_ok=True)
        run = self.play("verify")
        assert path.is_file(), run.output[-6000:]
        return path

    def compare(self, *words: str) -> Run:
        """Compare with the fingerprint that `verify` took behind the gap."""
        return self.gap.near("compare", str(self.folder / "far.json"), str(self.folder / f"{NAME}.json"), *words)


@pytest.fixture(scope="module")
def online(gap: GapSite) -> Iterator[Online]:
    """An installed host with the network; both hosts' fingerprints are taken."""
    keep = bool(os.environ.get("REDOUBT_KEEP"))
    try:
        if not keep:
            hosts.down(NAME)
        made = Online(gap, hosts.up(NAME, report=PlainReport()))
        run = made.play("site")
        assert run.status == 0, run.output[-6000:]
        made.verify()
        taken = gap.on(gap.control.name, f"cat {FAR_SITE}/fingerprints/{gap.main}.json")
        (made.folder / "far.json").write_text(taken)
        yield made
    finally:
        gap.hosts.pop(NAME, None)
        if not keep:
            hosts.down(NAME)


def test_it_is_the_same_host(online: Online) -> None:
    run = online.compare()
    assert run.status == 0, run.output[-6000:]
    assert "nothing differs" in run.output


def test_the_verdict_names_the_host_that_was_not_asked(online: Online) -> None:
    verdicts = json.loads((online.folder / "verdict.json").read_text())["hosts"]
    assert [check["id"] for check in verdicts[online.gap.control.name]["checks"]] == ["host.reached"]
    assert len(verdicts[NAME]["checks"]) > 10


def test_it_came_by_another_way(online: Online) -> None:
    far, near = (json.loads((online.folder / f"{name}.json").read_text()) for name in ("far", NAME))
    assert far["content"] == near["content"]
    assert "/etc/apt/redoubt/depot.sources" in far["local"]["sources"]
    assert "/etc/apt/redoubt/depot.sources" not in near["local"]["sources"]
    assert far["local"]["system"]["addresses"] != near["local"]["system"]["addresses"]
    assert len(far["sections"]["packages"]) > 100
    assert all(
        far["sections"][name] for name in ("files", "images", "containers", "weights", "units", "kernel", "users")
    )


def test_the_playbook_finds_no_drift(online: Online) -> None:
    run = online.play("compare")
    assert run.status == 0, run.output[-6000:]
    assert f"Nothing differs: {NAME}" in run.output


@pytest.fixture(scope="module")
def worked_on(online: Online) -> Online:
    """The two after somebody did something to one of them."""
    for command, _ in SEEDED.values():
        online.gap.on(NAME, command)
    return online


def test_the_playbook_finds_the_drift(worked_on: Online) -> None:
    run = worked_on.play("compare")
    assert run.status != 0
    for section, name, field in (named for _, named in SEEDED.values()):
        assert f"{NAME}:   {section} {name}: {field}" in run.output, run.output[-6000:]


@pytest.fixture(scope="module")
def seeded(worked_on: Online) -> set[tuple[str, str, str]]:
    """What the comparison with the host behind the gap names then."""
    online = worked_on
    online.verify()
    run = online.compare("--json")
    assert run.status == 1, run.output[-6000:]
    rows = json.loads(run.output)["differences"]
    return {(row["section"], row["name"], row["field"]) for row in rows}


@pytest.mark.parametrize("name", SEEDED)
def test_what_was_done_to_it_is_named(seeded: set[tuple[str, str, str]], name: str) -> None:
    assert SEEDED[name][1] in seeded


def test_nothing_else_is_named(seeded: set[tuple[str, str, str]]) -> None:
    assert seeded == {named for _, named in SEEDED.values()}
