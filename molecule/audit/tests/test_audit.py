"""The audit log on a real host: Nginx writes, logrotate rotates, the timer seals, the playbook proves and remembers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from tests.support.plays import Play, Run

LOG = "/var/log/nginx/gateway-audit.jsonl"
SEALS = "/var/lib/redoubt/audit/seals.jsonl"
METRICS = "/var/lib/redoubt/textfile/redoubt_gateway_audit.prom"
SERVICE = "redoubt-audit-seal.service"
ROTATION = "/etc/logrotate.d/redoubt-gateway"
HEADS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventory/group_vars/all/gateway_audit.yml")


def ask(host: Host, count: int) -> None:
    """Requests, each of which leaves a line."""
    request = r"exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /a%s HTTP/1.0\r\nHost: redoubt.lab\r\n\r\n' $i >&3; cat <&3"
    host.check_output("bash -c %s > /dev/null", f"for i in $(seq {count}); do {request}; done")


def rotate(host: Host) -> None:
    # The name of a rotated file has the second.
    host.check_output(f"sleep 1.1; logrotate --force {ROTATION}")


def seal(host: Host) -> int:
    return int(host.run(f"systemctl start {SERVICE}").rc)


def seals(host: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.file(SEALS).content_string.splitlines()]


def audit(play: Play, check: bool = False) -> Run:
    return play("../../playbooks/audit.yml", check)


@pytest.fixture
def kept(host: Host) -> Iterator[None]:
    """Puts log and seals back as they were, with their inodes."""
    host.check_output(f"systemctl stop redoubt-audit-seal.timer; cp -a {LOG} /root/log && cp -a {SEALS} /root/seals")
    yield
    host.check_output(f"cat /root/log > {LOG}; cat /root/seals > {SEALS}; systemctl start redoubt-audit-seal.timer")


def test_timer_seals_what_nginx_writes(host: Host) -> None:
    host.check_output("mkdir -p /var/lib/redoubt/textfile")
    ask(host, 5)
    host.check_output("systemctl restart redoubt-audit-seal.timer")
    for _ in range(60):
        if host.file(SEALS).exists and seals(host):
            break
        host.check_output("sleep 0.5")
    ask(host, 1)
    assert seal(host) == 0
    last = seals(host)[-1]
    assert last["end"] == host.file(LOG).size
    assert last["lines"] >= 1
    timer = host.check_output("systemctl show redoubt-audit-seal.timer -p ActiveState -p UnitFileState")
    assert set(timer.splitlines()) == {"ActiveState=active", "UnitFileState=enabled"}
    assert "redoubt_gateway_audit_problems 0" in host.file(METRICS).content_string
    assert host.file(LOG).mode == 0o640


def test_log_is_kept_by_age_only_and_rotated_once(host: Host) -> None:
    ours = host.file(ROTATION).content_string
    assert "rotate -1" in ours
    assert "maxage 90" in ours
    assert host.run("logrotate --debug /etc/logrotate.conf").rc == 0
    assert LOG not in host.check_output("logrotate --debug /etc/logrotate.d/nginx 2>&1")


@pytest.mark.usefixtures("host")  # or it would run after those that have it
def test_check_mode_keeps_no_head(play: Play) -> None:
    assert audit(play, check=True).status == 0
    assert not HEADS.exists()


def test_sound_log_is_proved_and_its_head_kept(host: Host, play: Play) -> None:
    run = audit(play)
    assert run.status == 0
    assert "lines in 1 files" in run.words
    head = yaml.safe_load(HEADS.read_text())["gateway_audit_heads"]["molecule-audit"]
    assert head["chain"] == seals(host)[head["seal"] - 1]["chain"]


def test_rotated_and_compressed_files_are_followed(host: Host, play: Play) -> None:
    for _ in range(3):
        ask(host, 3)  # not sealed before they are rotated
        rotate(host)
    ask(host, 2)
    assert seal(host) == 0
    assert host.check_output(f"ls {LOG}*").count(".gz") == 2
    text = host.check_output(f"cat {LOG}; cat {LOG}-*[0-9]; zcat {LOG}-*.gz")
    assert sum(row["lines"] for row in seals(host)) == len(text.splitlines())
    assert host.file(LOG).content_string.count("\n") == 2  # Nginx writes to the new file
    # What was not sealed before it was compressed is sealed as well.
    run = audit(play)
    assert run.status == 0
    assert "lines in 4 files" in run.words


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"sed 's#/a1#/b1#' {LOG} > /root/new; cat /root/new > {LOG}", "bytes 0 to"),
        (f"sed 1d {LOG} > /root/new; cat /root/new > {LOG}", "lines were removed"),
        (f"sed -i 2d {SEALS}", "stands where seal 2 belongs: removed or reordered"),
        (f"sed -i '$d' {SEALS}", "its end was cut off"),
        (f"> {SEALS}; systemctl start {SERVICE}", "was witnessed"),
    ],
)
def test_tampering_is_named_and_forgets_no_head(host: Host, play: Play, command: str, said: str) -> None:
    before = HEADS.read_text()
    host.run(command)
    run = audit(play)
    assert run.status != 0
    assert said in run.words
    assert HEADS.read_text() == before


def test_missing_file_is_named_by_timer_and_playbook(host: Host, play: Play) -> None:
    assert audit(play).status == 0  # whatever the others did was put back
    file = host.check_output(f"ls {LOG}-*.gz | head -n 1")
    host.check_output(f"mv {file} /root/gone.gz")
    assert seal(host) != 0
    assert "redoubt_gateway_audit_problems 1" in host.file(METRICS).content_string
    assert "is gone" in host.check_output(f"journalctl -u {SERVICE} -n 20")
    run = audit(play)
    assert "this file is missing" in run.words
    host.check_output(f"mv /root/gone.gz {file}")
    assert seal(host) == 0
    assert audit(play).status == 0


@pytest.mark.usefixtures("host")
def test_second_run_changes_nothing(play: Play) -> None:
    assert (run := play()).status == 0
    assert run.changed == 0
