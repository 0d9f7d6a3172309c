"""Three hosts that brought a model together: right everywhere, once from the origin, and nothing listens any more."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from tests.support.plays import Play
from tests.support.weight_trees import REVISIONS

NAMES = ("molecule-fanout-a", "molecule-fanout-b", "molecule-fanout-c")
ORIGIN = NAMES[0]
PUBLISHED = f"/srv/redoubt/models/tiny/{REVISIONS[0][:12]}"
MOST = 1.3  # times the bytes of the model that the origin may send for all hosts together


@pytest.fixture(scope="module")
def hosts() -> dict[str, Host]:
    inventory = f"{os.environ['MOLECULE_EPHEMERAL_DIRECTORY']}/inventory"
    return {name: testinfra.get_host(f"ansible://{name}", ansible_inventory=inventory) for name in NAMES}


def model() -> dict[str, dict[str, int | str]]:
    listed = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "trees/list.json").read_text())
    return {file["path"]: file for file in listed[0]["files"]}


def sent(origin: Host) -> int:
    """Bytes that the origin has sent so far."""
    return sum(int(line.split()[0]) for line in origin.file("/var/log/origin.log").content_string.splitlines())


def assert_clean(host: Host) -> None:
    assert not host.socket("tcp://0.0.0.0:18443").is_listening
    assert ":18443" not in host.check_output("ss -Hltn")
    assert not host.file("/run/redoubt/fanout").exists
    assert host.run("systemctl is-active redoubt-fanout").stdout.strip() == "inactive"


def test_right_everywhere_and_the_origin_sent_it_once(hosts: dict[str, Host]) -> None:
    size = sum(int(file["size"]) for file in model().values())
    for host in hosts.values():
        sums = host.check_output("cd %s && find . -type f -printf '%%P\\n' | xargs sha256sum", PUBLISHED).splitlines()
        assert {line.split()[1]: line.split()[0] for line in sums} == {
            path: file["sha256"] for path, file in model().items()
        }
    assert size <= sent(hosts[ORIGIN]) <= MOST * size


def test_nothing_listens_when_the_run_is_over(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        assert_clean(host)


def test_service_that_came_with_nginx_is_off(hosts: dict[str, Host]) -> None:
    for name in NAMES[1:]:
        assert hosts[name].run("systemctl is-enabled nginx").stdout.strip() == "disabled"
        assert ":80 " not in hosts[name].check_output("ss -Hltn")


def test_new_host_takes_all_from_the_others(hosts: dict[str, Host], play: Play) -> None:
    lost = hosts[NAMES[2]]
    lost.check_output("rm -r /srv/redoubt/models /var/lib/redoubt/weights")
    before = sent(hosts[ORIGIN])
    run = play()
    assert run.status == 0, run.text
    assert sent(hosts[ORIGIN]) == before
    assert lost.file(f"{PUBLISHED}/config.json").exists
    for host in hosts.values():
        assert_clean(host)
