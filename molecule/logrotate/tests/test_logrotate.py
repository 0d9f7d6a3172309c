"""Logs are rotated once, by size too, with Nginx writing on; containers without a limit are named."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.plays import Play

CONFIG = "/etc/logrotate.d/redoubt"


def test_timer_looks_every_hour(host: Host) -> None:
    assert host.service("logrotate.timer").is_enabled
    assert "OnCalendar=hourly" in host.check_output("systemctl cat logrotate.timer")
    shown = host.check_output("systemctl show -p TimersCalendar --value logrotate.timer")
    assert "OnCalendar=*-*-* *:00:00" in shown
    assert shown.count("OnCalendar=") == 1


def test_size_rotates_between_the_days(host: Host, play: Play) -> None:
    log = "/var/log/redoubt/probe.log"
    assert play(logrotate_max_size="4k").status == 0
    try:
        host.check_output("rm -f %s*", log)
        for _ in range(2):
            host.check_output("head -c 9000 /dev/zero | tr '\\0' x > %s; sleep 1; logrotate /etc/logrotate.conf", log)
        files = host.check_output("ls /var/log/redoubt").split()
    finally:
        host.check_output("rm -f %s*", log)
        assert play().status == 0
    # The day has not ended, so only the size can be the reason.
    assert sum(name.startswith("probe.log-") for name in files) >= 1


def test_audit_logs_are_kept_by_age_only(host: Host) -> None:
    audit = host.file(CONFIG).content_string.split("/var/log/redoubt/audit/*.log")[1]
    assert "rotate -1" in audit
    assert "maxage 400" in audit
    folder = host.file("/var/log/redoubt/audit")
    assert (folder.mode, folder.group) == (0o750, "adm")


def test_nginx_that_comes_later_is_rotated_once_and_writes_on(host: Host, play: Play) -> None:
    ours = host.file("/etc/logrotate.d/nginx").content_string
    options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
    host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get -y -q install {options} nginx curl")
    assert host.file("/etc/logrotate.d/nginx").content_string == ours
    assert host.run("logrotate --debug /etc/logrotate.conf").rc == 0
    host.check_output("curl -s -o /dev/null http://127.0.0.1/before")
    host.check_output("logrotate --force /etc/logrotate.conf && sleep 1")
    host.check_output("curl -s -o /dev/null http://127.0.0.1/after")
    log = host.file("/var/log/nginx/access.log")
    assert "/after" in log.content_string
    assert "/before" not in log.content_string
    assert (log.user, log.mode) == ("www-data", 0o640)
    rotated = host.check_output("cat /var/log/nginx/access.log-*")
    assert rotated.count("/before") == 1
    assert play().status == 0


def test_wrong_value_is_refused_by_logrotate_itself(host: Host, play: Play) -> None:
    before = host.file(CONFIG).content_string
    run = play(logrotate_max_size="12 apples")
    assert run.status != 0
    assert "nothing live was changed" in run.words
    assert host.file(CONFIG).content_string == before


def test_log_that_is_named_twice_is_seen(host: Host, play: Play) -> None:
    host.check_output("touch /var/log/redoubt/twice.log")
    host.check_output("printf '/var/log/redoubt/twice.log {\\n daily\\n}\\n' > /etc/logrotate.d/zz-other")
    try:
        run = play()
    finally:
        host.check_output("rm -f /etc/logrotate.d/zz-other /var/log/redoubt/twice.log")
    assert run.status != 0
    assert "duplicate log entry for /var/log/redoubt/twice.log" in run.words


def test_hand_made_change_is_put_back(host: Host, play: Play) -> None:
    before = host.file(CONFIG).content_string
    host.check_output("echo '# mine' >> %s", CONFIG)
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert host.file(CONFIG).content_string == before
    again = play()
    assert (again.status, again.changed) == (0, 0)


def test_running_container_without_a_limit_is_named(host: Host, play: Play) -> None:
    run_it = "docker run --detach --name %s --log-driver json-file %s local/tiny:1 /usr/bin/sleep infinity"
    host.check_output(run_it % ("endless", ""))
    host.check_output(run_it % ("modest", "--log-opt max-size=1m"))
    try:
        failed = play()
        reported = play(logrotate_unlimited_containers="report")
    finally:
        host.check_output("docker rm --force endless modest")
    assert failed.status != 0
    assert "endless (json-file without max-size never rotates)" in failed.words
    assert "modest" not in failed.words
    assert reported.status == 0
    assert "endless (json-file without max-size never rotates)" in reported.words
