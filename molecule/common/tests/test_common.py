"""The base of a host, and what the role does about a host that drifted from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play

DROP_IN = "/etc/sysctl.d/60-redoubt.conf"
# A play that takes the host for a machine, but leaves the kernel around this container alone.
AS_MACHINE: dict[str, Any] = {"__common_in_container": False, "__common_sysctl": {}, "common_nofile": 4096}


@pytest.mark.parametrize(
    ("path", "mode", "group"),
    [
        ("/etc/redoubt", 0o700, "root"),
        ("/opt/redoubt", 0o755, "root"),
        ("/srv/redoubt/models", 0o755, "root"),
        ("/var/lib/redoubt", 0o755, "root"),
        ("/var/log/redoubt", 0o750, "adm"),
        ("/var/log/redoubt/audit", 0o750, "adm"),
    ],
)
def test_directories(host: Host, path: str, mode: int, group: str) -> None:
    found = host.file(path)
    assert (found.is_directory, found.mode, found.user, found.group) == (True, mode, "root", group)


def test_service_account_cannot_log_in(host: Host) -> None:
    user = host.user("redoubt")
    assert user.shell.endswith("nologin")
    assert user.password.startswith("!")
    assert user.uid < 1000


def test_kernel_parameters_of_the_container_hold(host: Host) -> None:
    assert host.sysctl("net.core.somaxconn") == 4096
    assert host.sysctl("net.ipv4.tcp_slow_start_after_idle") == 0
    assert host.check_output("sysctl -n net.ipv4.ip_local_port_range").split() == ["20000", "60999"]


def test_parameter_changed_by_hand_is_put_back(host: Host, play: Play) -> None:
    host.check_output("sysctl -w net.core.somaxconn=128")
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert host.sysctl("net.core.somaxconn") == 4096
    # What belongs to the machine around this container is left alone, and named.
    assert "vm." not in host.file(DROP_IN).content_string
    assert "Left to the machine around this container:" in run.words
    assert "vm.max_map_count" in run.words


def test_parameter_that_the_kernel_refuses_is_named(host: Host, play: Play) -> None:
    wrong = {"net.ipv4.no_such_thing": 1, "net.ipv4.tcp_syncookies": "many"}
    strict = play(common_sysctl=wrong, common_sysctl_apply="strict")
    report = play(common_sysctl=wrong)
    for run in (strict, report):
        assert "does not take net.ipv4.no_such_thing=1 (it has nothing: this kernel has no such" in run.words
        assert "does not take net.ipv4.tcp_syncookies=many (it has 1: Invalid argument)" in run.words
    assert (strict.status != 0, report.status) == (True, 0)


def test_drift_is_mended(host: Host, play: Play) -> None:
    host.check_output("chmod 0777 /etc/redoubt && userdel redoubt && rm %s", DROP_IN)
    run = play()
    assert run.status == 0
    assert host.file("/etc/redoubt").mode == 0o700
    assert host.user("redoubt").exists
    assert host.file(DROP_IN).exists
    assert play().changed == 0


@pytest.fixture
def clock(host: Host) -> Iterator[Callable[[str], None]]:
    """Puts a stub_timedatectl before the real one, which in a container only knows its machine's clock."""
    path = "/usr/local/bin/timedatectl"

    def say(answer: str) -> None:
        host.check_output("printf '#!/bin/sh\\necho %s\\n' > %s && chmod 755 %s", answer, path, path)

    yield say
    host.check_output("rm -f %s", path)


def test_machine_with_a_good_clock(host: Host, play: Play, clock: Callable[[str], None]) -> None:
    clock("yes")
    run = play(**AS_MACHINE)
    assert run.status == 0
    assert "The clock is synchronised." in run.words
    # On a machine login sessions get their open files.
    assert host.check_output("su - operator -c 'ulimit -Hn'") == "4096"


def test_clock_that_is_not_synchronised_stops_the_run(host: Host, play: Play, clock: Callable[[str], None]) -> None:
    clock("no")
    required = play(**AS_MACHINE)
    warned = play(common_time_sync="warn", **AS_MACHINE)
    contained = play()
    assert required.status != 0
    assert "The clock of this host is not synchronised (common_time_sync is required)" in required.words
    assert (warned.status, contained.status) == (0, 0)
    assert "NOT synchronised (common_time_sync is warn)" in warned.words
    assert "NOT synchronised (a container has the clock of its machine)" in contained.words
    # That last run took the host for the container it is again.
    assert not host.file("/etc/security/limits.d/60-redoubt.conf").exists


def test_swap_is_refused_in_a_container(host: Host, play: Play) -> None:
    run = play(common_swap_file_size="64m")
    assert run.status != 0
    assert "Swap belongs to the machine, not to a container" in run.words
    assert not host.file("/swapfile").exists
