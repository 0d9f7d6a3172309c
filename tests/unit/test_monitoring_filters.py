"""Filters of the monitoring roles other than the rules."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from filter_plugins import monitoring

PORTS = {"monitoring_prometheus_port": 9090, "monitoring_alertmanager_port": 9093}


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "172.16.5.5", "fd00::5", "100.64.1.1"]
)
def test_private_addresses(address: str) -> None:
    assert monitoring.private_address(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "8.8.8.8", "2600::1", "host1", "", "10.0.0.0/8", "224.0.0.1"])  # noqa: S104 - refused
def test_addresses_open_to_others(address: str) -> None:
    assert not monitoring.private_address(address)


def test_host_port() -> None:
    assert monitoring.host_port("10.0.0.1", 9100) == "10.0.0.1:9100"
    assert monitoring.host_port("fd00::1", 9100) == "[fd00::1]:9100"


@pytest.mark.parametrize(
    ("gateway", "url", "tcp"),
    [
        ({"target": "https://llm.lab/healthz"}, "https://llm.lab:443/healthz", "llm.lab:443"),
        (
            {"target": "https://llm.lab:8443/healthz", "address": "10.0.0.2"},
            "https://10.0.0.2:8443/healthz",
            "10.0.0.2:8443",
        ),
        ({"target": "https://llm.lab", "address": "fd00::2"}, "https://[fd00::2]:443/", "[fd00::2]:443"),
    ],
)
def test_gateway_probes(gateway: dict[str, Any], url: str, tcp: str) -> None:
    (probe,) = monitoring.gateway_probes([{**gateway, "labels": {"host": "g1"}}])
    assert probe == {
        "instance": gateway["target"],
        "url": url,
        "hostname": "llm.lab",
        "tcp": tcp,
        "labels": {"host": "g1"},
    }


def test_alertmanager_without_receivers_sends_nothing() -> None:
    config = yaml.safe_load(monitoring.alertmanager_config([], {}, {}))
    assert config["route"]["receiver"] == "none"
    assert config["receivers"] == [{"name": "none"}]


def test_alertmanager_routes_to_the_first_receiver_and_keeps_the_operators_routes_first() -> None:
    receivers = [{"name": "pager", "webhook_configs": [{"url_file": "/etc/alertmanager/secrets/pager"}]}]
    route = {"group_wait": "1s", "routes": [{"matchers": ['alertname="Watchdog"'], "receiver": "pager"}]}
    config = yaml.safe_load(monitoring.alertmanager_config(receivers, route, {"smtp_smarthost": "mail:25"}))
    assert config["route"]["receiver"] == "pager"
    assert config["route"]["group_wait"] == "1s"
    assert [item["receiver"] for item in config["route"]["routes"]] == ["pager", "none"]
    assert config["global"] == {"resolve_timeout": "5m", "smtp_smarthost": "mail:25"}
    assert receivers[0] in config["receivers"]


def test_good_settings_have_no_problems() -> None:
    assert (
        monitoring.settings_problems(PORTS, [{"name": "pager"}], ["pager-url"], [{"target": "https://llm.lab/healthz"}])
        == []
    )


def test_all_problems_are_told_at_once() -> None:
    found = monitoring.settings_problems(
        {**PORTS, "monitoring_blackbox_port": 9090, "monitoring_grafana_port": 70000},
        [{"name": "pager"}, {"name": "pager"}, {"name": "none"}, {}],
        ["../key"],
        [{"target": "llm.lab:443"}, {"target": "http://llm.lab/healthz"}],
    )
    text = "\n".join(found)
    assert len(found) == 8
    assert "monitoring_prometheus_port and monitoring_blackbox_port are both 9090" in text
    assert "monitoring_grafana_port is 70000" in text
    for index in (1, 2, 3):
        assert f"monitoring_alert_receivers[{index}].name" in text
    assert "'../key' cannot be a file name" in text
    assert "'llm.lab:443' is no https URL" in text


def test_files_in() -> None:
    assert monitoring.files_in({"a": "1"}, "/x", {"mode": "0400"}) == [{"path": "/x/a", "content": "1", "mode": "0400"}]
