"""Draining: the plan without the host's endpoints, what is refused, what still runs, and the mark on disk."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from filter_plugins.doctor import doctor_inside_checks, doctor_outside_checks
from filter_plugins.drain import drain_endpoints, drain_problems, drain_refusals, drain_rest
from planner import plan
from planner.table import lines
from tests.support.plan_documents import document, host, model
from tests.unit.release_support import StubEngine, World, engines_running, load_module

from ansible.module_utils import in_flight  # isort: skip - found by release_support
from ansible.module_utils.checks import examine  # isort: skip
from ansible.module_utils.drained import changed_marks, read_marks, write_marks  # isort: skip

MARK = {"since": "2026-01-31T09:00:00Z", "by": "alice", "reason": "new fan"}

release = load_module("release")


def site(drained: dict[str, Any] | None = None, this: str = "gw") -> dict[str, Any]:
    """A gateway and two hosts: both serve `small`, only g1 serves `large`."""
    hosts = {
        "gw": host(kinds=("gateway", "monitoring"), address="10.0.0.1"),
        "g1": host(model("small"), model("large"), address="10.0.0.11"),
        "g2": host(model("small"), address="10.0.0.12"),
    }
    return plan(document(hosts, this, drained=drained or {}))


def models(made: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: (entry["servers"], entry["drained"]) for entry in made["gateway"]["models"]}


def test_a_site_without_drained_hosts_is_as_before() -> None:
    made = site()
    assert models(made) == {
        "small": (["10.0.0.11:8101", "10.0.0.12:8101"], []),
        "large": (["10.0.0.11:8102"], []),
    }
    assert made["drained"] == {}
    assert "drained" not in "\n".join(lines(made))


def test_the_endpoints_of_a_drained_host_get_no_requests() -> None:
    made = site({"g1": MARK, "gone": MARK})
    assert models(made) == {
        "small": (["10.0.0.12:8101"], ["10.0.0.11:8101"]),
        "large": ([], ["10.0.0.11:8102"]),
    }
    assert made["drained"] == {"g1": MARK}, "a host that left the inventory is no longer drained"
    assert made["warnings"] == ["large is served by nobody: all its hosts are drained"]
    text = "\n".join(lines(made))
    assert "gateway: small -> 10.0.0.12:8101; drained: 10.0.0.11:8101" in text
    assert "gateway: large -> nobody; drained: 10.0.0.11:8102" in text
    assert "g1 is drained since 2026-01-31T09:00:00Z by alice (new fan)" in text


def test_the_order_of_models_does_not_depend_on_who_is_drained() -> None:
    """The first model is what clients get at /v1."""
    assert list(models(site({"g1": MARK, "g2": MARK}))) == list(models(site()))


def test_the_plan_of_the_drained_host_says_so_itself() -> None:
    made = site({"g1": MARK}, "g1")
    assert [row["name"] for row in made["engines"]] == ["small", "large"]
    assert "drained since 2026-01-31T09:00:00Z by alice (new fan): out of the pool" in lines(made)[1]


# Refusals


@pytest.mark.parametrize(
    ("name", "reached", "said"),
    [
        ("g1", ["gw1", "gw2", "g1"], ""),
        (
            "g11",
            ["gw1", "gw2", "g1"],
            "'g11': no host of this name serves models. Fix: -e drain_host=NAME; did you mean g1?",
        ),
        ("", ["gw1", "gw2", "g1"], "drain_host is not set"),
        ("g1", ["gw1", "g1"], "gw2 does not answer or is outside --limit"),
        ("g1", ["gw1", "gw2"], "g1 does not answer or is outside --limit"),
    ],
)
def test_who_must_be_at_hand(name: str, reached: list[str], said: str) -> None:
    found = drain_problems(name, ["g1", "g2"], ["gw1", "gw2"], reached)
    assert len(found) == bool(said)
    assert said in "".join(found)


def answered(checks: list[dict[str, Any]], **ok: bool) -> list[dict[str, Any]]:
    return [{"id": c["id"], "ok": ok.get(c["id"].split()[0], True), "detail": f"{c['url']} said so"} for c in checks]


def test_each_model_must_keep_an_endpoint() -> None:
    pool, engines = site()["gateway"]["models"], site(this="g2")["engines"]
    rest = drain_rest(pool, engines)
    assert [check["url"] for check in rest] == ["http://10.0.0.11:8101/health"]
    assert drain_refusals(answered(rest), engines, "g2") == []
    dead = drain_refusals(answered(rest, small=False), engines, "g2")
    assert "small would be left without an endpoint if g2 were drained: http://10.0.0.11:8101/health said so" in dead[0]
    engines = site(this="g1")["engines"]
    last = drain_refusals(answered(drain_rest(pool, engines)), engines, "g1")
    assert len(last) == 1
    assert "large would be left without an endpoint if g1 were drained: no other host serves it" in last[0]
    assert "drain_allow_last_endpoint" in last[0]


def test_an_endpoint_that_is_drained_itself_does_not_count() -> None:
    engines = site(this="g2")["engines"]
    assert drain_rest(site({"g1": MARK})["gateway"]["models"], engines) == []


def test_endpoints_are_written_as_the_gateway_writes_them() -> None:
    assert drain_endpoints([{"address": "fd00::5", "port": 8101}]) == ["[fd00::5]:8101"]


def test_the_answers_check_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = StubEngine(0, [])
    good = examine({"id": "x", "kind": "answers", "url": f"http://127.0.0.1:{stub.port}/health"})
    bad = examine({"id": "x", "kind": "answers", "url": f"http://127.0.0.1:{stub.port}/nowhere"})
    stub.shutdown()
    stub.server_close()
    assert (good["ok"], bad["ok"]) == (True, False)


# What still runs

METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b} c"} 2.0
vllm:num_requests_running{engine="1",model_name="a b} c"} 1.0
vllm:num_requests_running_total{engine="1"} 77.0
vllm:num_requests_waiting{engine="0"} 4.0 1700000000000
"""
NAMES = ["vllm:num_requests_running", "vllm:num_requests_waiting"]


def test_gauges_are_summed_over_labels() -> None:
    assert in_flight.gauges(METRICS, NAMES) == {NAMES[0]: 3, NAMES[1]: 4}
    assert in_flight.gauges("", NAMES) == {}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {}, METRICS.encode()), "engine m has 3 running and 4 waiting"),
        ((200, {}, METRICS.replace("2.0", "0").replace("1.0", "0").replace("4.0", "0").encode()), ""),
        ((200, {}, b""), "engine m does not tell"),
        ((500, {}, METRICS.encode()), "engine m does not tell"),
        (TimeoutError("timed out"), "engine m does not tell"),
        (ConnectionRefusedError(), ""),
        (ConnectionResetError(), ""),
    ],
)
def test_what_an_engine_says(answer: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(url: str, timeout: float) -> Any:
        assert url == "http://10.0.0.5:8101/metrics"
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(in_flight, "http_request", request)
    row = {"name": "m", "address": "10.0.0.5", "port": 8101, "metrics_path": "/metrics", "request_metrics": NAMES}
    found = in_flight.engine_work(row)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def socket_line(far: str, state: str, inode: int) -> str:
    return f"   0: 0100007F:0050 {far} {state} 00000000:00000000 00:00000000 00000000  33  0 {inode} 1 x 20 4 30 10 -1"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc in which an Nginx holds sockets 11 to 14, and another program socket 15."""
    for pid, program, inodes in ((7, "nginx", (11, 12)), (8, "nginx", (13, 14)), (9, "prometheus", (15,))):
        folder = tmp_path / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(program + "\n")
        for inode in inodes:
            os.symlink(f"socket:[{inode}]", folder / "fd" / str(inode))
        os.symlink("/dev/null", folder / "fd/0")
    (tmp_path / "net").mkdir()
    heading = "  sl  local_address rem_address   st\n"
    four = [
        socket_line("0500000A:1FA5", "01", 11),  # 10.0.0.5:8101
        socket_line("0500000A:1FA5", "06", 12),  # the same, but closing
        socket_line("0600000A:1FA5", "01", 12),  # another host
        socket_line("0500000A:1FA5", "01", 15),  # another program
    ]
    six = [
        socket_line("0000000000000000FFFF00000500000A:1FA5", "01", 13),  # ::ffff:10.0.0.5
        socket_line("000000FD000000000000000005000000:1FA5", "01", 14),  # fd00::5
    ]
    (tmp_path / "net/tcp").write_text(heading + "\n".join(four) + "\n")
    (tmp_path / "net/tcp6").write_text(heading + "\n".join(six) + "\n")
    return tmp_path


def test_only_the_gateways_open_connections_count(proc: Path) -> None:
    found = in_flight.gateway_work(["10.0.0.5:8101", "[fd00::5]:8101", "10.0.0.9:8101"], str(proc))
    assert found == ["the gateway has 2 open to 10.0.0.5:8101", "the gateway has 1 open to [fd00::5]:8101"]
    (proc / "7/comm").write_text("bash\n")
    assert in_flight.gateway_work(["10.0.0.5:8101"], str(proc)) == ["the gateway has 1 open to 10.0.0.5:8101"]


def test_real_connections_are_seen() -> None:
    """This program's own connection, in this machine's own tables."""
    stub = StubEngine(0, [])
    name = Path("/proc/self/comm").read_text().strip()
    with socket.create_connection(("127.0.0.1", stub.port)):
        tables = [Path("/proc/net/tcp").read_text()]
        assert ("127.0.0.1", stub.port) in in_flight.connections(tables, in_flight.sockets_of(name))
    stub.shutdown()
    stub.server_close()


# The mark


def test_a_mark_is_kept_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible.module_utils.drained.write_atomically", lambda path, data, *_: Path(path).write_bytes(data)
    )
    path = str(tmp_path / "state/drained.json")
    assert read_marks(path) == {}
    write_marks(changed_marks({}, "g1", MARK), path)
    later = changed_marks(read_marks(path), "g1", {**MARK, "by": "bob"})
    assert later == {"g1": MARK}, "the first mark stays"
    assert changed_marks(later, "g2", None) == later
    write_marks(changed_marks(later, "g1", None), path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("text", ["", "[]", '{"g1": {}}', '{"g1": 3}'])
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "drained.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="remove it and drain those hosts again"):
        read_marks(str(path))


# Stopping


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    stub = StubEngine(0, ["tiny"])
    made = World(tmp_path, stub.port)
    for key, value in made.environment().items():
        monkeypatch.setenv(key, value)
    yield made
    stub.shutdown()
    stub.server_close()


def work(world: World, check: bool = False, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = release.work(world.params(**more), check)
    return result


def test_engines_stop_once_and_start_again_with_a_proof(world: World) -> None:
    assert work(world, state="stopped")["changed"] is False, "nothing is there yet"
    work(world)
    assert work(world, check=True, state="stopped")["changed"] is True
    assert list(engines_running(world)) == ["redoubt-tiny"]
    result = work(world, state="stopped")
    assert (result["action"], result["number"], result["changed"]) == ("stopped", 1, True)
    assert list(engines_running(world)) == []
    assert (result["action"], work(world, state="stopped")["changed"]) == ("stopped", False)
    assert work(world, check=True, state="stopped")["changed"] is False
    again = work(world)
    assert (again["action"], again["proofs"][0]["text"]) == ("repaired", " Paris.")


def test_engines_that_do_not_stop_are_said(world: World) -> None:
    work(world)
    world.set(after_stop="running")
    with pytest.raises(release.Refused, match="redoubt-tiny did not stop"):
        work(world, state="stopped")


# The doctor

SETTINGS = {
    "deep": False,
    "min_free_percent": 5,
    "prometheus_url": "http://127.0.0.1:9090",
    "certificate": "/c",
    "secret_patterns": [],
}


def test_the_doctor_says_drained_and_leaves_the_engines_alone() -> None:
    usual = {check["id"] for check in doctor_inside_checks(site(this="g1"), SETTINGS)}
    checks = {check["id"]: check for check in doctor_inside_checks(site({"g1": MARK}, "g1"), SETTINGS)}
    assert usual - set(checks) == {f"engine.{m}.{w}" for m in ("small", "large") for w in ("container", "completion")}
    answer = examine(checks["host.drained"])
    assert answer["ok"]
    assert answer["detail"].startswith("drained since 2026-01-31T09:00:00Z by alice (new fan)")
    assert "host.drained" not in usual


def test_targets_of_drained_hosts_are_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    target: dict[str, Any] = {"health": "down", "scrapePool": "p", "scrapeUrl": "u", "lastScrape": "t"}
    target |= {"lastError": "refused", "labels": {"host": "g1"}}
    answers = {"/api/v1/targets?state=active": {"activeTargets": [target]}, "/api/v1/query": {"result": []}}
    monkeypatch.setattr("ansible.module_utils.checks._prometheus_json", lambda url, *_: answers[url])
    made = site({"g1": MARK})
    check = next(c for c in doctor_inside_checks(made, SETTINGS) if c["id"] == "monitoring.targets") | {"url": ""}
    assert examine(check)["ok"], json.dumps(check)
    assert not examine(check | {"drained": ["g2"], "patience": 0})["ok"]


def test_the_doctor_streams_from_a_model_that_is_served() -> None:
    settings = {
        "url": "u",
        "server_name": "n",
        "connect_to": "a",
        "port": 443,
        "ca": "",
        "page": True,
        "closed_addresses": [],
    }
    made = site({"g2": MARK, "g1": MARK})
    made["gateway"]["models"][1]["servers"] = ["10.0.0.11:8102"]
    stream = next(c for c in doctor_outside_checks(made, settings) if c["kind"] == "stream")
    assert stream["model"] == "large"
