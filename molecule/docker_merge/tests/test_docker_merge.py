"""An engine that somebody else configured: what is theirs survives, and so do their containers."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

from tests.support.plays import Play

DAEMON_FILE = "/etc/docker/daemon.json"


def daemon(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.file(DAEMON_FILE).content_string))


def engine_pid(host: Host) -> str:
    return str(host.check_output("systemctl show -p MainPID --value docker"))


def guest(host: Host) -> str:
    """Identity of the operator's container: it changes with every start."""
    return str(host.check_output("docker inspect -f '{{.State.Running}} {{.State.Pid}} {{.State.StartedAt}}' guest"))


def labels(host: Host) -> list[str]:
    return list(json.loads(host.check_output("docker info --format '{{json .Labels}}'")))


def test_operators_keys_survive_and_ours_win(host: Host) -> None:
    options = daemon(host)
    assert options["debug"] is True
    assert options["labels"] == ["site=hall-3"]
    assert options["log-driver"] == "local"
    assert options["log-opts"] == {"max-file": "5", "max-size": "50m"}  # "labels" is none of this driver's
    assert options["default-address-pools"] == [
        {"base": "10.213.0.0/16", "size": 26},
        {"base": "172.30.0.0/16", "size": 24},
    ]
    assert options["live-restore"] is True


def test_container_survived_the_adoption(host: Host) -> None:
    # Started before live-restore was on; the engine has been restarted since.
    assert guest(host).startswith("true ")
    started = host.check_output("docker inspect -f '{{.State.StartedAt}}' guest")
    engine = host.check_output('date -u -d "$(systemctl show -p ActiveEnterTimestamp --value docker)" +%FT%T')
    assert started < engine


def test_option_that_needs_no_restart_is_reloaded(host: Host, play: Play) -> None:
    before = (engine_pid(host), guest(host))
    run = play(docker_daemon_options={"labels": ["rack=7"]})
    assert (run.status, run.changed) == (0, 1)
    assert sorted(labels(host)) == ["rack=7", "site=hall-3"]
    assert (engine_pid(host), guest(host)) == before


def test_option_taken_out_goes_and_the_operators_stays(host: Host, play: Play) -> None:
    # Goes on from the test above, which put a label of ours there.
    assert sorted(labels(host)) == ["rack=7", "site=hall-3"]
    assert play().status == 0
    assert labels(host) == ["site=hall-3"]
    assert daemon(host)["labels"] == ["site=hall-3"]


def test_restart_spares_the_container(host: Host, play: Play) -> None:
    before_engine, before_guest = engine_pid(host), guest(host)
    assert play(docker_nofile=4096).status == 0
    assert engine_pid(host) != before_engine
    assert guest(host) == before_guest
    assert play().status == 0
    assert guest(host) == before_guest


def test_unknown_option_is_refused_before_anything_changes(host: Host, play: Play) -> None:
    before = (host.file(DAEMON_FILE).content_string, engine_pid(host), guest(host))
    run = play(docker_daemon_options={"no-such-option": True})
    assert run.status != 0
    assert "no-such-option" in run.words
    assert "nothing live was changed" in run.words
    assert (host.file(DAEMON_FILE).content_string, engine_pid(host), guest(host)) == before


def test_option_the_engine_cannot_start_with_is_taken_back(host: Host, play: Play) -> None:
    # dockerd --validate does not see the unit's own -H flag, with which "hosts" collides at the start.
    before = (host.file(DAEMON_FILE).content_string, guest(host))
    run = play(docker_daemon_options={"hosts": ["unix:///run/other.sock"]})
    assert run.status != 0
    assert "the previous configuration is back and running" in run.words
    assert (host.file(DAEMON_FILE).content_string, guest(host)) == before
    assert "specified both as a flag and in the configuration file: hosts" in run.words
    assert host.service("docker").is_running
    engine = engine_pid(host)
    assert play().status == 0
    assert (engine_pid(host), guest(host)) == (engine, before[1])


def test_broken_file_of_the_operator_is_named_and_left_alone(host: Host, play: Play) -> None:
    good = host.file(DAEMON_FILE).content_string
    host.check_output("printf '{\"debug\": tru' > %s", DAEMON_FILE)
    run = play()
    broken = host.file(DAEMON_FILE).content_string
    host.check_output("printf %%s %s > %s", good, DAEMON_FILE)
    assert run.status != 0
    assert "daemon.json is not valid JSON" in run.words
    assert broken == '{"debug": tru'
