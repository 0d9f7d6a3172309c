"""A host under a lock: locked versions only, all refusals by name, nothing changed by a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play, Run

STUBS = ("engine", "engine-libs", "cache", "store", "stranger-a", "stranger-b")
OLD = ["engine=1.0-1", "engine-libs=1.0-1", "store=3.0"]
NEW = ["engine=2.0-1", "engine-libs=2.0-1", "store=3.0"]
AS_LOCKED = dict(item.split("=") for item in OLD)
SOURCES = "/opt/stub/stub.sources"
BROKEN = "/etc/apt/sources.list.d/broken.sources"


def versions(host: Host) -> dict[str, str]:
    told = host.run(f"dpkg-query -W -f '${{db:Status-Abbrev}} ${{Package}} ${{Version}}\\n' {' '.join(STUBS)}").stdout
    rows = [line.split() for line in told.splitlines() if line.startswith("ii ")]
    return {name: version for _, name, version in rows}


def remove(host: Host) -> None:
    host.check_output(f"apt-get -y -q purge {' '.join(STUBS)}")
    host.check_output("apt-get -q update")  # a run of strict mode with one source read only that


@pytest.fixture(autouse=True)
def _as_converged(host: Host, play: Play) -> Iterator[None]:
    yield
    remove(host)
    assert play().status == 0


def refused(run: Run, host: Host, before: dict[str, str], *words: str) -> None:
    assert run.status != 0
    for word in words:
        assert word in run.words
    assert versions(host) == before


def test_locked_versions_came_though_newer_ones_are_there(host: Host, play: Play) -> None:
    assert "2.0-1" in host.check_output("apt-cache policy engine")
    assert versions(host) == AS_LOCKED
    again = play()
    assert (again.status, again.changed) == (0, 0)


def test_what_the_lock_lacks_is_refused_with_every_name(host: Host, play: Play) -> None:
    wanted = ["engine", "stranger-a", "stranger-b=1.0"]
    for check in (True, False):
        run = play(check=check, wanted=wanted)
        refused(
            run, host, AS_LOCKED, "not in the lock: stranger-a, stranger-b=1.0", "lock/platforms/debian-13-amd64.yml"
        )
        assert "./redoubt play lock" in run.words


def test_another_version_than_the_lock_s_is_refused(host: Host, play: Play) -> None:
    refused(play(wanted=["engine=2.0-*"]), host, AS_LOCKED, "engine=2.0-* (locked: 1.0-1)")
    assert play(wanted=["engine=1.0-*"]).status == 0


def test_what_would_come_along_is_refused_by_name(host: Host, play: Play) -> None:
    remove(host)
    refused(play(locked=["engine=1.0-1", "store=3.0"]), host, {}, "not in the lock:", "engine-libs=2.0-1")
    refused(play(locked=["engine=1.0-1", "engine-libs=1.0-1"]), host, {}, "not in the lock: cache=3.0")


def test_a_source_with_other_bytes_is_refused(host: Host, play: Play) -> None:
    remove(host)
    forged = {"engine-libs_1.0-1_all.deb": "0" * 64}
    refused(play(forged=forged), host, {}, "does not have the bytes of the lock", "engine-libs 1.0-1", "000000")
    assert host.run("ls /var/cache/apt/archives/engine*.deb").rc != 0


def test_one_source_alone_is_read(host: Host, play: Play) -> None:
    """The host's other sources cannot even be parsed: whoever looked at them would fail."""
    remove(host)
    elsewhere: dict[str, Any] = {
        "name": "elsewhere",
        "url": "https://192.0.2.1/apt",
        "suite": "./",
        "key_url": "https://192.0.2.1/key",
        "key_fingerprints": ["A" * 40],
    }
    host.check_output(f"printf 'nonsense\\n' > {BROKEN}")
    assert play(sources="").status != 0
    run = play(sources=SOURCES, repository=elsewhere)
    host.check_output(f"rm {BROKEN}")
    assert run.status == 0
    assert versions(host) == AS_LOCKED
    assert not host.file("/etc/apt/sources.list.d/elsewhere.sources").exists


def test_a_source_that_is_not_there(host: Host, play: Play) -> None:
    remove(host)
    refused(play(sources="/etc/no.sources"), host, {}, "/etc/no.sources", "is not there")


def test_a_newer_lock_raises_and_an_older_one_only_where_it_may(host: Host, play: Play) -> None:
    run = play(locked=NEW, wanted=["store"], installed_too=True)
    assert run.status == 0
    assert versions(host) == dict(item.split("=") for item in NEW)
    assert play(locked=NEW, wanted=["store"], installed_too=True).changed == 0
    now = versions(host)
    refused(play(locked=OLD), host, now, "newer on this host than in the lock: engine 2.0-1 (locked: 1.0-1)")
    assert play(locked=OLD, wanted=["store"], installed_too=True).status == 0
    assert versions(host) == now
    assert play(locked=OLD, wanted=["engine", "engine-libs"], downgrade=True).status == 0
    assert versions(host) == AS_LOCKED


def test_open_mode_takes_what_there_is(host: Host, play: Play) -> None:
    remove(host)
    assert play(mode="open", wanted=["engine", "stranger-a"]).status == 0
    assert versions(host)["engine"] == "2.0-1"
    assert "stranger-a" in versions(host)


@pytest.mark.parametrize("text", ["{", '{"mode": "strict"}', '{"mode": "lax", "packages": {}, "sources": ""}'])
def test_a_file_that_is_not_redoubt_s(host: Host, play: Play, text: str) -> None:
    refused(play(text=text), host, AS_LOCKED, "/etc/redoubt/packages.json")
