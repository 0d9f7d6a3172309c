"""The alert rules: each is complete, tested by promtool's own tests, and can be changed by an operator."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from filter_plugins import monitoring
from tests.support import metrics, promtool

REPO = Path(__file__).parents[2]
TEXTS = {path.name: path.read_text() for path in sorted((REPO / "roles/monitoring/files/rules").glob("*.yml"))}
TESTS = sorted((REPO / "tests/rules").glob("*.yml"))


def rules(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def alerts(text: str) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(text) if "alert" in rule}


ALERTS = {name: rule for text in TEXTS.values() for name, rule in alerts(text).items()}


def test_names_of_alerts_are_unique() -> None:
    assert len(ALERTS) == sum(len(alerts(text)) for text in TEXTS.values())


def test_every_file_of_rules_reaches_prometheus() -> None:
    shipped = yaml.safe_load((REPO / "roles/monitoring/vars/main.yml").read_text())["__monitoring_shipped_rules"]
    assert {name: f"rules/{name}" in value for name, value in shipped.items()} == dict.fromkeys(TEXTS, True)


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_what_is_wrong_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in monitoring.SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(len(text) > 10 and "\n" not in text.strip() for text in rule["annotations"].values())


def test_each_alert_is_seen_firing_in_a_test() -> None:
    fired = {
        case["alertname"]
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == set(ALERTS)


def test_engine_metrics_exist_in_the_engine() -> None:
    used = {metric for text in TEXTS.values() for rule in rules(text) for metric in metrics.vllm_names(rule["expr"])}
    assert used
    assert used - metrics.VLLM == set()


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = promtool.find(tmp_path_factory.mktemp("promtool"))
    if found is None:
        pytest.skip("no promtool here and no lab image yet; the molecule scenario monitoring runs these on its host")
    return found


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtool_tests(tool: str, path: Path) -> None:
    done = subprocess.run([tool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_tests_can_fail(tool: str, tmp_path: Path) -> None:
    """The same tests on rules with one wrong threshold must be red."""
    (tmp_path / "hosts.yml").write_text(
        TEXTS["hosts.yml"].replace("host:memory_available:ratio < 0.05", "vector(1) < 0")
    )
    test = (REPO / "tests/rules/hosts.yml").read_text()
    broken = re.sub(r"rule_files: .*", f"rule_files: [{tmp_path}/hosts.yml]", test)
    (tmp_path / "test.yml").write_text(broken)
    done = subprocess.run([tool, "test", "rules", str(tmp_path / "test.yml")], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"HostMemoryLow" in done.stdout + done.stderr


def files(**changes: Any) -> dict[str, str]:
    arguments: dict[str, Any] = {"overrides": {}, "extra_groups": [], "expected_targets": {}, **changes}
    return monitoring.rule_files(TEXTS, **arguments)


def test_without_changes_the_rules_stay_as_shipped() -> None:
    made = files()
    assert {name: yaml.safe_load(made[name]) for name in TEXTS} == {name: yaml.safe_load(TEXTS[name]) for name in TEXTS}


def test_an_alert_can_be_changed() -> None:
    made = files(overrides={"EngineDown": {"for": "10s", "severity": "warning", "expr": "up == 0"}})
    changed = alerts(made["engines.yml"])["EngineDown"]
    assert (changed["for"], changed["labels"]["severity"], changed["expr"]) == ("10s", "warning", "up == 0")
    assert changed["annotations"] == ALERTS["EngineDown"]["annotations"]


def test_an_alert_can_be_switched_off_and_its_group_stays() -> None:
    made = files(overrides={"HostClockNotSynchronised": {"enabled": False}})
    assert "HostClockNotSynchronised" not in alerts(made["hosts.yml"])
    assert len(alerts(made["hosts.yml"])) == len(alerts(TEXTS["hosts.yml"])) - 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"EngineDwon": {"for": "1m"}}, ["monitoring_alert_overrides.EngineDwon", "did you mean EngineDown?"]),
        ({"EngineDown": {"fro": "1m"}}, ["EngineDown.fro", "enabled, for, severity, expr"]),
        ({"EngineDown": {"for": "1 minute"}}, ["'1 minute'", "30s, 5m or 1h"]),
        ({"EngineDown": {"for": 60}}, ["60", "type str"]),
        ({"EngineDown": {"severity": "page"}}, ["'page'", "critical, warning, none"]),
        ({"EngineDown": "1m"}, ["'1m'", "{for: 5m}"]),
    ],
)
def test_a_wrong_change_is_refused(override: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(AnsibleFilterError) as refusal:
        files(overrides=override)
    assert all(word in str(refusal.value) for word in words)


def test_own_groups_and_expected_targets_are_written() -> None:
    group = {"name": "mine", "rules": [{"record": "one", "expr": "vector(1)"}]}
    made = files(extra_groups=[group], expected_targets={"engine": 3})
    assert yaml.safe_load(made["extra.yml"]) == {"groups": [group]}
    assert rules(made["targets.yml"]) == [
        {"record": "redoubt:targets:expected", "expr": "vector(3)", "labels": {"job": "engine"}}
    ]


def test_expected_targets_count_each_job() -> None:
    targets: dict[str, list[Any]] = {"engines": [{}, {}], "hosts": [], "gateways": [{}]}
    own = {"prometheus": 1, "alertmanager": 1, "blackbox": 1}
    assert monitoring.expected_targets(targets) == {"engine": 2, "gateway": 1, "gateway_tcp": 1, **own}
