"""The playbook upgrade_driver: which host gets its turn, what is refused, and what an operator is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from filter_plugins import upgrade_driver as upgrade
from tests.unit.gpu_support import VERSION, GpuHost

NEW = "595.71.05"
MARK = {"since": "2026-01-31T09:00:00Z", "by": "alice", "reason": "new fan"}
OURS = {**MARK, "reason": f"driver {VERSION} -> {NEW}"}


@pytest.fixture
def host(tmp_path: Path) -> GpuHost:
    return GpuHost(tmp_path, "8xH100-SXM").with_driver()


def turn(host: GpuHost, version: str, mark: dict[str, str] | None = None, **plan: Any) -> dict[str, Any]:
    expected = {"driver": version, "flavour": "open", "gpus": [row["address"] for row in host.description["gpus"]]}
    made = {"host": "g1", "driver": {**expected, "fabric": True, "fabric_timeout": 9}, **plan}
    return upgrade.upgrade_turn(made, host.facts(), version, {"g2": MARK, **({"g1": mark} if mark else {})})


def test_a_host_with_another_version_gets_its_turn(host: GpuHost) -> None:
    found = turn(host, NEW)
    assert (found["needed"], found["pooled"], found["back"]) == (True, True, True)
    assert found["why"] == f"{VERSION} -> {NEW}"
    assert found["reason"] == f"driver {VERSION} -> {NEW}"


def test_a_host_that_has_it_is_left_alone(host: GpuHost) -> None:
    found = turn(host, VERSION)
    assert not found["needed"]
    assert found["why"] == f"has {VERSION} already"


def test_a_sick_host_that_has_it_is_named_and_left_alone(host: GpuHost) -> None:
    host.smi["rows"][3]["persistence_mode"] = "Disabled"
    found = turn(host, VERSION)
    assert not found["needed"]
    assert "has 580.126.20 already, but persistence:" in found["why"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("modinfo", "version: 580.95.05\nlicense: Dual MIT/GPL"),
        ("nv-fabricmanager", "Fabric Manager version is : 580.95.05"),
    ],
)
def test_one_part_of_another_version_is_enough(host: GpuHost, command: str, text: str) -> None:
    host.says(command, text)
    assert turn(host, VERSION)["needed"]


def test_a_host_drained_by_an_operator_stays_drained(host: GpuHost) -> None:
    found = turn(host, NEW, MARK)
    assert (found["needed"], found["pooled"], found["back"]) == (True, False, False)
    assert found["why"].endswith("; it is drained since 2026-01-31T09:00:00Z by alice (new fan) and stays so")
    assert not turn(host, VERSION, MARK)["needed"]


def test_a_host_that_an_earlier_run_left_drained_is_gone_on_with(host: GpuHost) -> None:
    again = turn(host, NEW, OURS)
    assert (again["needed"], again["pooled"], again["back"], again["old"]) == (True, False, True, VERSION)
    proved = turn(host, VERSION, {**OURS, "reason": f"driver 575.1.2 -> {VERSION}"})
    assert (proved["needed"], proved["back"], proved["old"]) == (True, True, "575.1.2"), "what it had at first is known"


def test_a_host_without_a_managed_driver_is_left_alone(host: GpuHost) -> None:
    found = turn(host, NEW, driver=None)
    assert not found["needed"]
    assert "nvidia_driver_manage is false" in found["why"]


def test_a_host_without_any_driver_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    found = turn(host, NEW)
    assert (found["needed"], found["old"]) == (True, "none")
    assert len(upgrade.upgrade_ways(found, "g1", NEW, "", ["inv"])) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("", "", ["g1"], "inference", ""), "version is not set"),
        ((NEW, VERSION, ["g1"], "inference", ""), f"nvidia_driver_version = {VERSION} is given on the command line"),
        ((NEW, NEW, ["g1"], "inference", "g1"), "Fix: -e upgrade_hosts=g1"),
        ((NEW, "", [], "gpu9", ""), "upgrade_hosts = 'gpu9': no host of the group inference fits"),
    ],
)
def test_words_that_cannot_be_meant(words: tuple[Any, ...], said: str) -> None:
    problems = upgrade.upgrade_problems(*words)
    assert len(problems) == 1
    assert said in problems[0]


def test_good_words() -> None:
    assert upgrade.upgrade_problems(NEW, NEW, ["g1"], "g*", "") == []


def test_hosts_that_do_not_answer_are_named_with_how_to_leave_them_out() -> None:
    lines = upgrade.upgrade_away(["g1", "g2"], ["gw1", "gw2"], ["gw1", "g1"])
    assert len(lines) == 2
    assert lines[0].startswith("gw2 does not answer")
    assert "leave it out" not in lines[0]
    assert "-e 'upgrade_hosts=inference:!g2'" in lines[1]


def engine(name: str, address: str) -> dict[str, Any]:
    return {"name": name, "address": address, "port": 8101, "health": {"path": "/health"}}


def test_each_host_must_leave_an_endpoint_that_answers() -> None:
    engines = {"g1": [engine("small", "10.0.0.1"), engine("large", "10.0.0.1")], "g2": [engine("small", "10.0.0.2")]}
    models = [
        {"name": "small", "servers": ["10.0.0.1:8101", "10.0.0.2:8101"]},
        {"name": "large", "servers": ["10.0.0.1:8101"]},
        {"name": "elsewhere", "servers": ["10.0.0.3:8101"]},
    ]
    checks = upgrade.upgrade_checks(models, engines)
    assert [check["id"] for check in checks] == ["small 10.0.0.1:8101", "small 10.0.0.2:8101", "large 10.0.0.1:8101"]
    good = [{**check, "ok": True, "detail": "answers"} for check in checks]
    lines = upgrade.upgrade_refusals(good, engines, {})
    assert [line.partition(":")[0] for line in lines] == ["large would be left without an endpoint if g1 were drained"]
    silent = [{**good[0]}, {**good[1], "ok": False, "detail": "10.0.0.2:8101 does not answer"}]
    lines = upgrade.upgrade_refusals(silent, {"g1": [engines["g1"][0]], "g2": engines["g2"]}, {})
    assert len(lines) == 1
    assert "if g1 were drained: 10.0.0.2:8101 does not answer" in lines[0]


def test_a_host_that_a_run_left_drained_is_first_and_counts_as_back_for_the_others() -> None:
    said = {"g1": (True, True, True), "g2": (True, False, False), "g3": (True, False, True), "g4": (False, True, True)}
    hostvars = {
        name: {
            "upgrade_turn": dict(zip(("needed", "pooled", "back"), words, strict=True)),
            "deployment_plan": {"engines": [engine("small", f"10.0.0.{name[1]}")]},
        }
        for name, words in said.items()
    }
    turns = upgrade.upgrade_turns(list(said), hostvars)
    assert list(turns) == ["g3", "g1", "g2"]
    leaving = upgrade.upgrade_engines(turns, hostvars, pooled=True)
    returning = upgrade.upgrade_engines(turns, hostvars, pooled=False)
    assert (list(leaving), list(returning)) == (["g1"], ["g3"])
    checks = upgrade.upgrade_checks([{"name": "small", "servers": ["10.0.0.1:8101"]}], leaving)
    answers = [{**check, "ok": True, "detail": ""} for check in checks]
    assert upgrade.upgrade_refusals(answers, leaving, returning) == []
    assert len(upgrade.upgrade_refusals(answers, leaving, {})) == 1


def test_the_ways_on_and_back_are_whole_commands() -> None:
    found = {"old": VERSION}
    on, back = upgrade.upgrade_ways(found, "g1", NEW, "g*", ["/sites/my site"])
    assert on == f"To go on: ./redoubt play upgrade_driver -i '/sites/my site' -e version={NEW} -e upgrade_hosts='g*'"
    assert back.endswith(f"-e version={VERSION} -e upgrade_hosts=g1")
    assert len(upgrade.upgrade_ways(found, "g1", VERSION, "", ["inv"])) == 1, "it is the way back already"


def test_a_failure_says_what_and_who() -> None:
    turns = {name: {"step": "driver 1 -> 2"} for name in ("g1", "g2", "g3")}
    lines = upgrade.upgrade_failure({"msg": ["one", "two"]}, "Wait", "g2", turns, ["g1"])
    assert lines[0] == "g2: driver 1 -> 2 failed at 'Wait': one\ntwo"
    assert lines[1] == "g2 is drained and gets no requests. Done before: g1. Not touched: g3."


def test_the_inventory_is_named_where_it_has_another_version() -> None:
    hostvars = {
        "g1": {"upgrade_known_version": VERSION, "deployment_plan": {"driver": {}}},
        "g2": {"upgrade_known_version": NEW, "deployment_plan": {"driver": {"driver": NEW}}},
        "g3": {"upgrade_known_version": VERSION, "deployment_plan": {"driver": {"driver": NEW}}},
        "g4": {"upgrade_known_version": "", "deployment_plan": {"driver": {"driver": NEW}}},
    }
    known = upgrade.upgrade_known(list(hostvars), hostvars)
    lines = upgrade.upgrade_notes(known, NEW, "/sites/one")
    assert len(lines) == 2
    assert lines[0].startswith(f"Now set nvidia_driver_version: {NEW} for g3 in /sites/one (group_vars/ or host_vars/)")
    assert "for g4" in lines[1]
    assert "where it is not set" in lines[1]
    assert upgrade.upgrade_notes({"g2": NEW}, NEW, "/sites/one") == []
