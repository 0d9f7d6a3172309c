"""What goes wrong turns the run red and leaves the old configuration running, or is made up for by the next run."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play
from tests.support.prometheus import PROMETHEUS, fetch, loaded_config, until

PROMETHEUS_FILE = "/etc/redoubt/monitoring/prometheus/prometheus.yml"
RULES_FILE = "/etc/redoubt/monitoring/prometheus/rules/extra.yml"


def started(host: Host, name: str = "redoubt-prometheus") -> str:
    return str(host.check_output(f"docker inspect -f '{{{{.State.StartedAt}}}} {{{{.RestartCount}}}}' {name}"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"monitoring_extra_rule_groups": [{"name": "mine", "rules": [{"record": "mine", "expr": "sum("}]}]},
            ["promtool", "unclosed left parenthesis"],
        ),
        ({"monitoring_alert_receivers": [{"name": "pager", "webhook_configs": [{}]}]}, ["amtool", "url"]),
        ({"monitoring_alert_route": {"receiver": "nobody"}}, ["amtool", "nobody"]),
        ({"monitoring_prometheus_memory": "much"}, ["compose"]),
    ],
    ids=["rules", "receiver", "route", "compose"],
)
def test_a_broken_configuration_is_refused(host: Host, play: Play, fault: dict[str, Any], words: list[str]) -> None:
    before = (host.file(RULES_FILE).content_string, loaded_config(host), started(host))
    run = play(**fault)
    assert run.status != 0
    assert all(word in run.words for word in [*words, "nothing live was changed"])
    assert (host.file(RULES_FILE).content_string, loaded_config(host), started(host)) == before


def test_after_refusals_nothing_is_left_to_do(host: Host, play: Play) -> None:
    before = started(host)
    again = play()
    assert (again.status, again.changed) == (0, 0)
    assert started(host) == before


def test_a_service_that_crash_loops_is_red_and_the_old_one_is_back(host: Host, play: Play) -> None:
    """The node exporter has this port; only the running service finds out."""
    run = play(monitoring_alertmanager_port=9100)
    assert run.status != 0
    assert "address already in use" in run.words
    assert "the previous configuration is back and running" in run.words
    assert fetch(host, "http://127.0.0.1:9093/-/ready")
    assert fetch(host, f"{PROMETHEUS}/-/ready")
    assert "9093" in loaded_config(host)
    # The restored set is applied once more, for only a good run counts as a proof of these files.
    assert play().status == 0


def test_a_reload_that_never_happened_is_made_up_for(host: Host, play: Play) -> None:
    """The file on disk is right and the process runs another one: as if the run had died before its reload."""
    assert play(interval="3s").status == 0
    assert "scrape_interval: 3s" in loaded_config(host)
    host.check_output(f"sed -i.wanted s/3s/9s/ {PROMETHEUS_FILE} && docker kill -s HUP redoubt-prometheus")
    assert until(lambda: "scrape_interval: 9s" in loaded_config(host), 10)
    host.check_output(f"mv {PROMETHEUS_FILE}.wanted {PROMETHEUS_FILE}")

    run = play(interval="3s")
    assert (run.status, run.changed) == (0, 1)
    assert "scrape_interval: 3s" in loaded_config(host)
    again = play(interval="3s")
    assert (again.status, again.changed) == (0, 0)


def test_a_reload_that_was_refused_is_seen(host: Host, play: Play) -> None:
    host.check_output(f"cp -a {PROMETHEUS_FILE} /var/tmp/good.yml && echo nonsense >> {PROMETHEUS_FILE}")
    host.check_output("docker kill -s HUP redoubt-prometheus")
    host.check_output(f"cp -a /var/tmp/good.yml {PROMETHEUS_FILE}")
    run = play(interval="3s")
    assert (run.status, run.changed) == (0, 1)
    text = fetch(host, f"{PROMETHEUS}/metrics")
    assert "prometheus_config_last_reload_successful 1" in text


def test_a_removed_container_comes_back(host: Host, play: Play) -> None:
    host.check_output("docker rm -f redoubt-blackbox redoubt-node-exporter")
    run = play(interval="3s")
    assert (run.status, run.changed) == (0, 2)
    assert host.check_output(
        "docker inspect -f '{{.State.Status}}' redoubt-blackbox redoubt-node-exporter"
    ).split() == [
        "running",
        "running",
    ]


def test_a_container_on_an_older_image_is_replaced(host: Host, play: Play) -> None:
    """The image's name moves to other bytes, as after an upgrade; the running container must follow."""
    name = host.check_output("docker inspect -f '{{.Config.Image}}' redoubt-blackbox")
    before = host.check_output("docker inspect -f '{{.Image}}' redoubt-blackbox")
    change = "--change 'LABEL redoubt.test=1' redoubt-blackbox"
    host.check_output(f"docker commit {change} {name}")
    try:
        run = play(interval="3s")
        assert (run.status, run.changed) == (0, 1)
        assert host.check_output("docker inspect -f '{{.Image}}' redoubt-blackbox") != before
    finally:
        host.check_output(f"docker tag {before} {name}")
