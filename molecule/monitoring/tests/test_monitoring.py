"""The monitoring stack on one host: it sees, it alerts, it delivers, and it shows nothing to the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from testinfra.host import Host

from tests.support import dashboards
from tests.support.plays import Play
from tests.support.prometheus import PROMETHEUS, alerts, fetch, query, targets, until

REPO = Path(__file__).parents[3]
CONTAINERS = ["redoubt-prometheus", "redoubt-alertmanager", "redoubt-blackbox", "redoubt-node-exporter"]
GATEWAY = "https://redoubt.lab/healthz"
DEAD = ("engine", "127.0.0.1:8101")
SECRET = "hook-5f1c0e9d8b7a"


def shipped_alerts() -> set[str]:
    texts = [path.read_text() for path in (REPO / "roles/monitoring/files/rules").glob("*.yml")]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_all_targets_but_the_dead_one_are_up(host: Host) -> None:
    assert until(lambda: "unknown" not in targets(host).values())
    found = targets(host)
    assert found.pop(DEAD) == "down"
    assert {job for job, _ in found} == {"prometheus", "alertmanager", "blackbox", "host", "gateway", "gateway_tcp"}
    assert set(found.values()) == {"up"}


def test_the_dead_target_fires_in_alertmanager(host: Host) -> None:
    assert until(lambda: "EngineDown" in alerts(host))
    alert = alerts(host)["EngineDown"]
    assert alert["labels"]["model"] == "nobody"
    assert alert["labels"]["severity"] == "critical"
    assert "redoubt-nobody" in alert["annotations"]["runbook"]
    assert alert["receivers"] == [{"name": "none"}]


def test_all_rules_are_loaded_and_healthy(host: Host) -> None:
    groups = json.loads(fetch(host, f"{PROMETHEUS}/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == shipped_alerts()
    # A rule is "unknown" until its first evaluation.
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not [rule["name"] for rule in rules if rule.get("lastError")]


def test_rules_pass_promtools_tests_in_the_image(host: Host) -> None:
    image = host.check_output("docker inspect -f '{{.Config.Image}}' redoubt-prometheus")
    files = " ".join(f"/r/tests/rules/{path.name}" for path in sorted((REPO / "tests/rules").glob("*.yml")))
    run = "docker run --rm --network none -v /var/tmp/rules:/r:ro --entrypoint promtool"
    assert host.run(f"{run} {image} test rules {files}").rc == 0


def test_gateway_is_asked_by_name_and_certificate(host: Host) -> None:
    assert query(host, 'probe_success{job="gateway"}') == {GATEWAY: 1}
    assert query(host, 'probe_success{job="gateway_tcp"}') == {GATEWAY: 1}
    days = query(host, 'floor((probe_ssl_earliest_cert_expiry{job="gateway"} - time()) / 86400)')
    assert days[GATEWAY] in {88, 89, 90}


def test_every_dashboard_query_runs(host: Host) -> None:
    boards = dashboards.load()
    ask = dashboards.ask_remotely(PROMETHEUS, host.check_output)
    everywhere = {query.place for query in dashboards.queries(boards["serving"])}
    # No engine here: its queries must be understood, those on hosts must also find something.
    assert dashboards.problems(dashboards.run([boards["serving"]], ask), may_be_empty=everywhere) == []
    assert dashboards.problems(dashboards.run([boards["host"]], ask)) == []


def test_nothing_listens_beyond_loopback(host: Host) -> None:
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    for port in (9090, 9093, 9094, 9100, 9115, 3000):
        assert {address for address in listening if address.endswith(f":{port}")} <= {f"127.0.0.1:{port}"}
    assert {f"127.0.0.1:{port}" for port in (9090, 9093, 9100, 9115)} <= listening


def test_containers_are_bounded(host: Host) -> None:
    for state in json.loads(host.check_output(f"docker inspect {' '.join(CONTAINERS)}")):
        limits = state["HostConfig"]
        assert limits["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}, state["Name"]
        assert limits["Memory"] > 0
        assert limits["PidsLimit"] > 0
        assert limits["ReadonlyRootfs"]
        assert limits["CapDrop"] == ["ALL"]
        assert limits["RestartPolicy"]["Name"] == "unless-stopped"
        assert state["Config"]["User"] == "65534:65534"


@pytest.mark.parametrize("name", ["redoubt-prometheus", "redoubt-alertmanager"])
def test_health_checks_answer(host: Host, name: str) -> None:
    ask = f"docker inspect -f '{{{{.State.Health.Status}}}}' {name}"
    assert until(lambda: host.check_output(ask) == "healthy", 60)


def test_data_survives_a_new_container(host: Host) -> None:
    assert host.file("/var/lib/redoubt/prometheus").uid == 65534
    assert host.file("/var/lib/redoubt/prometheus/wal").is_directory


def test_alerts_are_delivered_and_the_secret_stays_one(host: Host, play: Play) -> None:
    run = play(
        monitoring_alert_receivers=[
            {
                "name": "hook",
                "webhook_configs": [{"url_file": "/etc/alertmanager/secrets/hook", "send_resolved": False}],
            }
        ],
        monitoring_alert_secrets={"hook": f"http://127.0.0.1:8088/{SECRET}"},
    )
    assert (run.status, run.changed) == (0, 1)
    assert SECRET not in run.text
    log = "/var/log/nginx/alerts.log"
    assert until(lambda: f"POST /{SECRET} " in host.file(log).content_string, 40)
    secret = host.file("/etc/redoubt/monitoring/alertmanager/secrets/hook")
    assert (secret.uid, secret.mode) == (65534, 0o400)
    assert host.file("/etc/redoubt/monitoring/alertmanager/alertmanager.yml").mode == 0o400
    assert SECRET not in host.check_output("ps axww") + host.check_output("docker inspect redoubt-alertmanager")


def test_a_certificate_of_another_ca_is_an_alarm(host: Host, play: Play) -> None:
    assert play(other_ca=host.file("/etc/nginx/other.crt").content_string).status == 0
    assert until(lambda: "GatewayDown" in alerts(host), 40)
    # The port is open: only the certificate is wrong.
    assert query(host, 'probe_success{job="gateway_tcp"}') == {GATEWAY: 1}
    assert play().status == 0
    assert until(lambda: query(host, 'probe_success{job="gateway"}') == {GATEWAY: 1}, 20)


def test_bad_settings_are_refused_before_anything_changes(host: Host, play: Play) -> None:
    before = host.check_output("find /etc/redoubt /opt/redoubt -printf '%%p %%C@\\n' | sort | sha256sum")
    run = play(
        monitoring_alert_overrides={"EngineDwon": {"for": "1m"}},
        monitoring_blackbox_port=9090,
        monitoring_alert_secrets={"../../passwd": "x"},
    )
    assert run.status != 0
    for words in (
        "did you mean EngineDown?",
        "monitoring_prometheus_port and monitoring_blackbox_port are both 9090",
        "'../../passwd'",
    ):
        assert words in run.words
    assert host.check_output("find /etc/redoubt /opt/redoubt -printf '%%p %%C@\\n' | sort | sha256sum") == before
