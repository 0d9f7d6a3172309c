"""The engine as the role leaves it, and what the role does about an engine that went astray."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.support.plays import Play

DAEMON_FILE = "/etc/docker/daemon.json"
# A container without a registry: sleep and cat with the libraries they need.
IMPORT = (
    "tar -ch /usr/bin/sleep /usr/bin/cat $(ldd /usr/bin/sleep /usr/bin/cat | grep -o '/lib[^ ]*' | sort -u)"
    " 2>/dev/null | docker import - local/tiny:1"
)


@pytest.fixture(scope="module")
def image(host: Host) -> str:
    host.check_output(IMPORT)
    return "local/tiny:1"


def info(host: Host, key: str) -> str:
    return str(host.check_output("docker info --format '{{ json .%s }}'", key))


def test_engine_runs_and_starts_at_boot(host: Host) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_compose_is_a_plugin(host: Host) -> None:
    version = host.check_output("docker compose version --short")
    assert int(version.lstrip("v").split(".")[0]) >= 2


def test_engine_really_uses_the_options(host: Host) -> None:
    assert info(host, "LoggingDriver") == '"local"'
    assert info(host, "LiveRestoreEnabled") == "true"
    assert json.loads(info(host, "DefaultAddressPools")) == [{"Base": "172.30.0.0/16", "Size": 24}]


def test_container_gets_log_limit_and_open_files(host: Host, image: str) -> None:
    name = host.check_output("docker create %s /usr/bin/sleep 1", image)
    try:
        log = json.loads(host.check_output("docker inspect --format '{{ json .HostConfig.LogConfig }}' %s", name))
    finally:
        host.check_output("docker rm %s", name)
    assert log == {"Type": "local", "Config": {"max-file": "5", "max-size": "50m"}}
    limits = host.check_output("docker run --rm %s /usr/bin/cat /proc/self/limits", image)
    row = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    ceiling = int(host.check_output("awk '/^Max open files/ {print $5}' /proc/1/limits"))
    assert row.split()[3:5] == [str(min(65536, ceiling))] * 2


def test_networks_bind_to_loopback_by_default(host: Host) -> None:
    host.check_output("docker network create probe")
    try:
        shown = json.loads(host.check_output("docker network inspect probe"))[0]
    finally:
        host.check_output("docker network rm probe")
    assert shown["Options"]["com.docker.network.bridge.host_binding_ipv4"] == "127.0.0.1"
    assert shown["IPAM"]["Config"][0]["Subnet"].startswith("172.30.")


def test_hand_made_change_of_our_option_is_put_back(host: Host, play: Play) -> None:
    host.check_output('sed -i \'s/"max-size": "50m"/"max-size": "9g"/\' %s', DAEMON_FILE)
    assert "9g" in host.file(DAEMON_FILE).content_string
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert "9g" not in host.file(DAEMON_FILE).content_string
    again = play()
    assert (again.status, again.changed) == (0, 0)


def test_stopped_engine_is_started(host: Host, play: Play) -> None:
    host.check_output("systemctl stop docker.socket docker.service")
    assert not host.service("docker").is_running
    assert play().status == 0
    assert host.service("docker").is_running


def test_run_that_died_before_the_restart_is_made_up_for(host: Host, play: Play) -> None:
    # What a killed run leaves: the new file is there, no proof is, and the engine still works with the old one.
    options = json.loads(host.file(DAEMON_FILE).content_string)
    options["log-opts"]["max-file"] = "7"
    text = json.dumps(options, indent=4, sort_keys=True)
    host.check_output("printf '%%s\\n' %s > %s && rm /var/lib/redoubt/config_sets/docker.json", text, DAEMON_FILE)
    before = host.check_output("systemctl show -p MainPID --value docker")
    run = play(docker_log_max_files=7)
    assert (run.status, run.changed) == (0, 1)
    assert host.check_output("systemctl show -p MainPID --value docker") != before
    assert play().status == 0


def test_engine_of_the_other_source_is_refused_and_left_alone(host: Host, play: Play) -> None:
    run = play(docker_source="docker")
    assert run.status != 0
    assert "in conflict with docker-ce" in run.words
    assert "docker_source to distribution" in run.words
    assert not host.file("/etc/apt/sources.list.d/docker.sources").exists
    assert host.service("docker").is_running
