"""Only declared ports are open to declared sources; Docker opens none; nobody is locked out."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from lab import hosts
from tests.support.plays import Play

testinfra_hosts = ["ansible://molecule-firewall"]
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventory")
PROGRAM = "/usr/local/lib/redoubt/firewall"
RULES = "/etc/redoubt/firewall/rules.nft"
# Addresses for IPv6, which the lab's network does not give.
SERVER6, CLIENT6 = "fd00:91::1", "fd00:91::2"
IPV6 = "echo 0 | tee /proc/sys/net/ipv6/conf/[ae][lt]*/disable_ipv6; ip addr replace %s/64 dev eth0 nodad"
SERVE = "systemctl is-active -q port-%s || systemd-run -q --collect --unit port-%s busybox nc -ll -p %s -e echo hello"
# 8081 is published and not declared, 8082 is both.
CONTAINER = (
    "docker inspect web >/dev/null 2>&1 || (tar -C / -ch bin/busybox | docker import - local/busybox:1"
    " && docker run -d --name web --restart always -p 0.0.0.0:8081:80 -p 0.0.0.0:8082:80"
    " local/busybox:1 /bin/busybox nc -ll -p 80 -e echo hello)"
)
HOST_PORTS = (8001, 8002, 8003, 8005, 8006, 8007)
# What the client reaches, and what this machine does.
FOR_CLIENT = {8001, 8005, 8006, 8082}
FOR_CONTROL = {8002}


def address_of(name: str) -> str:
    document = json.loads((INVENTORY / "lab.json").read_text())
    return str(document["all"]["hosts"][name]["ansible_host"])


@pytest.fixture(scope="module")
def address() -> str:
    return address_of("molecule-firewall")


@pytest.fixture(scope="module")
def client() -> Host:
    found = testinfra.get_host("ansible://molecule-firewall-client", ansible_inventory=str(INVENTORY))
    found.check_output(IPV6, CLIENT6)
    return found


def listen(host: Host) -> None:
    """Start what is to be reached: on the host and in a container."""
    host.check_output(IPV6, SERVER6)
    for port in HOST_PORTS:
        host.check_output(SERVE, *[str(port)] * 3)
    host.check_output(CONTAINER)
    host.check_output(
        "for i in $(seq 100); do [ $(ss -ltnH | grep -c ':80[0-9][0-9] ') -ge %s ] && exit 0; sleep 0.1; done; exit 1",
        str(len(HOST_PORTS) + 2),
    )


@pytest.fixture(autouse=True)
def listening(host: Host) -> None:
    listen(host)


def open_from_client(client: Host, address: str, ports: tuple[int, ...] = (*HOST_PORTS, 8081, 8082)) -> set[int]:
    """The ports that answer the client. All are asked at once, since a refused one costs the whole timeout."""
    each = f"(busybox timeout 3 busybox nc {address} $p </dev/null 2>/dev/null | grep -q hello && echo $p) &"
    words = " ".join(str(port) for port in ports)
    return {int(port) for port in client.check_output(f"for p in {words}; do {each} done; wait").split()}


def open_from_here(address: str) -> set[int]:
    found = set()
    for port in (*HOST_PORTS, 8081, 8082):
        try:
            with socket.create_connection((address, port), 1.5) as stream:
                stream.settimeout(3)
                if b"hello" in stream.recv(100):
                    found.add(port)
        except TimeoutError:
            continue  # nothing but silence may answer: a refusal would tell that nothing listens
    return found


def assert_only_declared(client: Host, address: str) -> None:
    assert open_from_client(client, address) == FOR_CLIENT
    assert open_from_here(address) == FOR_CONTROL


def table(host: Host) -> str:
    return str(host.run("nft --stateless list table inet redoubt").stdout)


def test_the_tests_can_tell_open_from_closed(host: Host, client: Host, address: str) -> None:
    before = table(host)
    host.check_output("nft delete table inet redoubt")
    try:
        assert open_from_client(client, address) == {*HOST_PORTS, 8081, 8082}
        assert open_from_here(address) == {*HOST_PORTS, 8081, 8082}
        assert open_from_client(client, SERVER6, HOST_PORTS) == set(HOST_PORTS)
    finally:
        host.check_output(f"python3 {PROGRAM} load")
    assert table(host) == before


def test_declared_ports_are_open_to_declared_sources_only(client: Host, address: str) -> None:
    assert_only_declared(client, address)


def test_ipv6_likewise(client: Host) -> None:
    assert open_from_client(client, SERVER6, HOST_PORTS) == {8001, 8005, 8006}
    assert client.run("ping -c 1 -W 2 %s || busybox ping6 -c 1 -W 2 %s", SERVER6, SERVER6).rc == 0


def test_a_containers_own_address_is_closed(host: Host, client: Host, address: str) -> None:
    inside = host.check_output("docker inspect -f '{{ .NetworkSettings.IPAddress }}' web")
    client.check_output("ip route replace %s via %s", inside, address)
    # Docker drops this too in newer versions; here only our own counter tells who did it.
    assert open_from_client(client, inside, (80,)) == set()


def test_containers_send_and_reach_each_other_as_before(host: Host, client: Host, address: str) -> None:
    client.check_output(SERVE, *["9000"] * 3)
    ask = "docker run --rm local/busybox:1 /bin/busybox timeout 5 /bin/busybox nc %s %s </dev/null"
    assert "hello" in host.check_output(ask, address_of("molecule-firewall-client"), "9000")
    inside = host.check_output("docker inspect -f '{{ .NetworkSettings.IPAddress }}' web")
    assert "hello" in host.check_output(ask, inside, "80")
    assert "hello" in host.check_output(f"busybox timeout 5 busybox nc {address} 8003 </dev/null")  # the host itself


def test_a_restart_of_docker_opens_nothing(host: Host, client: Host, address: str) -> None:
    host.check_output("systemctl reset-failed docker; systemctl restart docker")
    listen(host)
    assert_only_declared(client, address)


def test_a_restart_of_nftables_service_leaves_the_rules(host: Host, client: Host, address: str) -> None:
    host.check_output("systemctl start nftables && systemctl restart redoubt-firewall")
    host.check_output("systemctl restart nftables")  # Debian's configuration begins with `flush ruleset`
    before = table(host)
    host.check_output("systemctl reload nftables")
    assert table(host) == before != ""
    # Docker's own tables are gone now; that is what the flush is.
    host.check_output("systemctl stop nftables; systemctl reset-failed docker; systemctl restart docker")
    host.check_output("systemctl start redoubt-firewall")
    assert_only_declared(client, address)


def test_second_run_changes_nothing(play: Play) -> None:
    run = play()
    assert (run.status, run.changed) == (0, 0)


def test_tables_of_others_stay(host: Host, play: Play) -> None:
    host.check_output("nft add table inet somebody; nft add chain inet somebody theirs; nft list table ip nat")
    run = play(firewall_log_drops=True)
    assert (run.status, run.changed) == (0, 1)
    assert "redoubt-drop" in table(host)
    assert host.run("nft list chain inet somebody theirs").rc == 0
    assert "DOCKER" in host.check_output("nft list table ip nat")
    assert "hook output" not in table(host)
    assert play().changed == 1


def test_rules_without_the_control_host_are_refused(host: Host, play: Play) -> None:
    before = table(host)
    run = play(firewall_ssh_cidrs=["192.0.2.0/24"])
    assert run.status != 0
    assert "which is in none of firewall_ssh_cidrs (192.0.2.0/24)" in run.words
    assert "nothing live was changed" in run.words
    assert play(firewall_ssh_port=2022).words.count("Fix: firewall_ssh_port: 22")
    assert table(host) == before
    assert play().changed == 0


def test_rules_that_cannot_be_meant_are_refused(host: Host, play: Play) -> None:
    before = table(host)
    rules = [
        {"name": "nobody", "ports": ["80"], "sources": []},
        {"name": "backwards", "ports": ["80-70"], "sources": ["10.0.0.0/8"]},
        {"name": "host bits", "ports": ["80"], "sources": ["10.0.0.1/8"]},
    ]
    run = play(firewall_rules=rules)
    assert run.status != 0
    wanted = ["firewall_rules[nobody]: sources is empty", "is neither a port", "has host bits set"]
    assert [why for why in wanted if why not in run.words] == []
    assert table(host) == before


def test_who_locks_himself_out_gets_the_former_rules_back(host: Host, client: Host, address: str, play: Play) -> None:
    rules, before = host.file(RULES).content_string, table(host)
    began = time.monotonic()
    run = play(firewall_ssh_cidrs=["192.0.2.0/24"], firewall_check_source=False, firewall_confirm_seconds=25)
    assert run.status != 0
    assert time.monotonic() - began > 20  # it was really locked out for that long
    assert "no new SSH connection came in within 25 seconds" in run.words
    assert "(restored 20" in run.words
    assert "firewall_ssh_cidrs (192.0.2.0/24) must hold the address" in run.words
    assert (host.file(RULES).content_string, table(host)) == (rules, before)
    assert_only_declared(client, address)
    again = play()
    assert again.status == 0
    assert play().changed == 0


def test_a_first_try_that_locks_out_leaves_no_rules(host: Host, play: Play) -> None:
    assert play(firewall_enabled=False).changed == 1
    assert table(host) == ""
    assert not host.file(PROGRAM).exists
    assert play(firewall_enabled=False).changed == 0
    run = play(firewall_ssh_cidrs=["192.0.2.0/24"], firewall_check_source=False, firewall_confirm_seconds=25)
    assert "no new SSH connection came in" in run.words
    assert table(host) == ""
    assert not host.file(RULES).exists
    assert play(check=True).status == 0
    assert play().status == 0


def test_run_that_died_before_its_proof_is_made_up_for(host: Host, play: Play) -> None:
    host.check_output(f"python3 {PROGRAM} apply")
    assert "never confirmed" in host.run(f"python3 {PROGRAM} check").stderr
    assert play().changed == 1
    assert host.run("systemctl is-active redoubt-firewall-restore.timer").rc != 0
    assert play().changed == 0


@pytest.mark.parametrize(
    ("seed", "told"),
    [
        ("nft delete table inet redoubt", "every port is open"),
        ("nft add rule inet redoubt declared tcp dport 8003 accept", "was changed after"),
        (f"echo >> {RULES}", "is not what was loaded"),
    ],
)
def test_rules_changed_by_hand_are_told_and_put_back(host: Host, play: Play, seed: str, told: str) -> None:
    before = table(host)
    host.check_output(seed)
    seen = host.run(f"python3 {PROGRAM} check")
    assert seen.rc != 0
    assert told in seen.stderr
    assert play().changed == 1
    assert table(host) == before
    assert host.run(f"python3 {PROGRAM} check").rc == 0


def test_after_a_restart_the_rules_are_there_before_docker(host: Host, client: Host, address: str) -> None:
    before, rules = table(host), host.file(RULES).content_string
    # Somebody's last try before the restart, which nobody confirmed, must not come back with it.
    host.check_output(f"sed -i 's/proto-dst {{ 8002 }}/proto-dst {{ 8003 }}/' {RULES} && python3 {PROGRAM} apply")
    assert "proto-dst 8003" in table(host)
    hosts.restart("molecule-firewall")
    assert (table(host), host.file(RULES).content_string) == (before, rules)
    assert host.service("redoubt-firewall").is_enabled
    started = "systemctl show -p ActiveEnterTimestampMonotonic --value redoubt-firewall docker"
    firewall, docker = (int(line) for line in host.check_output(started).split())
    assert firewall < docker
    listen(host)
    assert_only_declared(client, address)
