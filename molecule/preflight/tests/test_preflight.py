"""Preflight on a real host: what it sees there, what it refuses, and that it never changes anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.plays import Play

HOST = "molecule-preflight"
# Names, sizes and times of all that a role could change, and the packages.
LISTING = (
    "find /etc /opt /srv /usr /var -xdev -not -path '/var/log/*' -not -path '/var/lib/systemd/*'"
    " -not -path '/var/tmp/*'"
    " -printf '%p %s %m %T@\\n' | LC_ALL=C sort; dpkg --list"
)


@pytest.fixture(autouse=True)
def untouched(host: Host) -> Iterator[None]:
    """Whatever a test runs, the host must be the same afterwards."""
    before = host.check_output(LISTING)
    yield
    assert host.check_output(LISTING).splitlines() == before.splitlines()


@pytest.fixture
def extra_inventory() -> Iterator[Path]:
    """A second inventory file beside molecule's own; removed afterwards."""
    path = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory" / "zz_test.json"
    yield path
    path.unlink(missing_ok=True)


def test_the_plan_is_made_from_the_hosts_facts(host: Host, play: Play) -> None:
    run = play()
    assert (run.status, run.changed) == (0, 0)
    address = host.check_output("hostname -I").split()
    assert f"{HOST}: gateway, inference, monitoring" in run.words
    assert "the host has no free GPU, so it runs on the CPU" in run.words
    assert any(f"gateway: small -> {one}:8101" in run.words for one in address)


def test_first_run_in_check_mode(play: Play) -> None:
    run = play(check=True)
    assert (run.status, run.changed) == (0, 0)


def test_an_unsupported_system_is_refused(host: Host, play: Play) -> None:
    """Debian 11 by what its os-release says."""
    fake = '\'PRETTY_NAME="Debian GNU/Linux 11"\nNAME="Debian GNU/Linux"\nVERSION_ID="11"\nID=debian\n\''
    host.check_output("cp /usr/lib/os-release /etc/debian_version /run/")
    try:
        host.check_output(f"mount --bind /run/os-release /usr/lib/os-release && printf {fake} > /run/os-release")
        host.check_output("mount --bind /run/debian_version /etc/debian_version && echo 11.9 > /run/debian_version")
        run = play()
    finally:
        host.run("umount /usr/lib/os-release; umount /etc/debian_version")
    assert run.status != 0
    assert f'operating system of {HOST} = "Debian 11' in run.words
    assert "it is not supported" in run.words
    assert "Debian 12, 13" in run.words


def test_too_little_disk_is_refused(play: Play) -> None:
    run = play(image_size=10**15)
    assert run.status != 0
    assert f"disk of {HOST} (" in run.words
    assert "images and weights need" in run.words
    assert "but the file system has" in run.words
    assert "Fix: free " in run.words


def test_limits_beyond_the_host_are_refused(play: Play) -> None:
    model = {"name": "small", "gpus": 1, "resources": {"cpus": 1000, "memory": "100000g"}}
    run = play(redoubt_models=[model])
    assert run.status != 0
    for words in ("redoubt_models[0].gpus = 1", "resources.cpus = 1000", 'resources.memory = "100000g"'):
        assert words in run.words


def test_a_user_without_root_rights_is_refused(play: Play) -> None:
    run = play(ansible_user="guest")
    assert run.status != 0
    assert f"{HOST} answers, but user guest cannot work there as root" in run.words
    assert "give the user sudo rights" in run.words


def test_a_host_that_is_down_is_named_and_the_others_go_on(play: Play, extra_inventory: Path) -> None:
    down = {"ansible_host": "127.0.0.1", "ansible_port": 9, "address": "10.0.0.9"}
    groups = {"inference": {"hosts": {"down": down}}}
    extra_inventory.write_text(json.dumps({"all": {"children": groups}}))
    run = play()
    assert "down : ok=" in run.words
    assert "[down]: UNREACHABLE!" in run.words.replace("fatal: ", "")
    assert f"{HOST}: gateway, inference, monitoring" in run.words
    assert "10.0.0.9:8101" in run.words  # the gateway will use it when it is back
    assert run.text.count("unreachable=1") == 1
    assert run.text.count("failed=0") == 2


def test_a_refusal_on_one_host_stops_all(play: Play, extra_inventory: Path) -> None:
    """The bad host cannot even be reached; its variables are judged before."""
    bad = {"ansible_host": "127.0.0.1", "ansible_port": 9, "address": "8.8.8.8"}
    extra_inventory.write_text(json.dumps({"all": {"children": {"inference": {"hosts": {"bad": bad}}}}}))
    run = play()
    assert run.status != 0
    assert "redoubt_private_address of bad" in run.words
    assert "UNREACHABLE" not in run.text
    assert "Gather the host's facts" not in run.text
