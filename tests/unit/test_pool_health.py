"""Servers that give no good answers leave their pool and come back, and never the last one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.pool_health import checking
from ansible.module_utils.pool_health.checking import main, problem_of
from ansible.module_utils.pool_health.checks import POOL_KINDS
from ansible.module_utils.pool_health.judging import Standing, dumped, judged, loaded, pool_text
from ansible.module_utils.run_lock import only_run
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.doctor import doctor_inside_checks
from filter_plugins.gateway_inputs import gateway_problems
from policy.pools import gateway_pools
from tests.support.gateway_render import MODELS

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"
FAILS, PASSES = 3, 2
Answers = dict[str, str | None]


def rounds(*answers: Answers) -> dict[str, Standing]:
    """What is known after these rounds."""
    pool: dict[str, Standing] = {}
    for number, answer in enumerate(answers):
        pool = judged(pool, answer, FAILS, PASSES, str(number))
    return pool


def out(pool: dict[str, Standing]) -> set[str]:
    return {server for server, one in pool.items() if one.out}


def test_goes_out_after_so_many_bad_answers_and_comes_back_after_so_many_good_ones() -> None:
    bad: Answers = {A: "refused", B: None}
    good: Answers = {A: None, B: None}
    assert out(rounds(bad, bad)) == set()
    assert out(rounds(bad, bad, good, bad, bad)) == set()
    gone = rounds(bad, bad, bad)
    assert gone[A] == Standing(True, -3, "2", "refused")
    assert out(rounds(bad, bad, bad, good)) == {A}
    assert out(rounds(bad, bad, bad, good, bad, good)) == {A}
    assert rounds(bad, bad, bad, good, good)[A] == Standing(False, 2, "4")


def test_last_one_stays_and_goes_when_another_is_back() -> None:
    bad: Answers = dict.fromkeys((A, B, C), "refused")
    found = rounds({**bad, B: None}, bad, bad, bad, bad)
    assert out(found) == {A, C}
    assert found[B].kept
    back: Answers = {**bad, A: None}
    for number in range(PASSES):
        found = judged(found, back, FAILS, PASSES, str(number))
    assert out(found) == {B, C}
    assert not found[B].kept


def test_those_that_are_left_take_requests_again_when_the_others_leave_the_plan() -> None:
    bad: Answers = {A: "refused", B: None}
    found = rounds(bad, bad, bad)
    assert out(found) == {A}
    model: dict[str, Any] = {"servers": [A], "drained": [B], "backup": [], "weights": {A: 4}}
    assert pool_text(model, found).splitlines()[1:] == [
        f"server {A} weight=4 max_fails=3 fail_timeout=10s;",
        f"server {B} down; # drained",
    ]
    then = judged(found, {A: "refused"}, FAILS, PASSES, "9")
    assert (out(then), then[A].kept) == (set(), True)


def test_canary_that_is_alone_goes_too_as_others_stand_behind_it() -> None:
    pool: dict[str, Standing] = {}
    for number in range(FAILS):
        pool = judged(pool, {A: "silent"}, FAILS, PASSES, str(number), least=0)
    assert out(pool) == {A}
    assert pool_text({"servers": [A], "drained": [], "backup": [B], "weights": {}}, pool).splitlines()[1:] == [
        f"server {A} down; # out since 2",
        f"server {B} backup;",
    ]


@given(st.lists(st.fixed_dictionaries({name: st.sampled_from([None, "bad"]) for name in (A, B, C)}), max_size=40))
def test_at_least_one_is_in_and_who_is_out_had_it_coming(history: list[Answers]) -> None:
    pool: dict[str, Standing] = {}
    for number, answers in enumerate(history):
        before = out(pool)
        pool = judged(pool, answers, FAILS, PASSES, str(number))
        assert len(out(pool)) < 3
        for server in out(pool) - before:
            assert [row[server] for row in history[number - FAILS + 1 : number + 1]] == ["bad"] * FAILS
        for server in before - out(pool):
            assert [row[server] for row in history[number - PASSES + 1 : number + 1]] == [None] * PASSES
    assert loaded(json.loads(json.dumps(dumped({"p": pool})))) == {"p": pool}


class Engine(BaseHTTPRequestHandler):
    """Answers as its path says."""

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.server.stop.wait(30)  # type: ignore[attr-defined] # given by the fixture
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["max_tokens"] == 1
        assert ("prompt" in body) == (self.path == "/v1/completions")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"choices": [{"text": "x"}]}' if body["model"] == "good" else b'{"choices": []}')


@pytest.fixture
def engine() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        server.stop = threading.Event()  # type: ignore[attr-defined] # so that a silent answer ends with the test
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.stop.set()  # type: ignore[attr-defined] # as above
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "generation", "name", "problem"),
    [
        ("/health", "", "", None),
        ("/ill", "", "", "503"),
        ("/silent", "", "", "timed out"),
        ("/health", "/v1/completions", "good", None),
        ("/health", "/v1/chat/completions", "good", None),
        ("/health", "/v1/completions", "dumb", "IndexError"),
    ],
)
def test_problem_of_a_server(
    engine: str, path: str, generation: str, name: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy is not asked
    found = problem_of(engine, {"path": path, "generation": generation, "name": name}, 1)
    assert (found is None) if problem is None else problem in str(found)


def test_server_that_is_not_there_is_a_problem() -> None:
    assert "refused" in str(problem_of("127.0.0.1:1", {"path": "/", "generation": ""}, 1))


class Gateway:
    """A gateway's files, and Nginx as commands that note what they are called for."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.answers: Answers = {}
        self.refused = root / "refused"
        note = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.open('a').write(sys.argv[2] + '\\n');"
        check = [
            sys.executable,
            "-c",
            f"{note} sys.exit((p.parent / 'refused').exists())",
            str(root / "calls"),
            "check",
        ]
        monkeypatch.setattr(checking, "CHECK", check)
        monkeypatch.setattr(checking, "RELOAD", [sys.executable, "-c", note, str(root / "calls"), "reload"])
        monkeypatch.setattr(checking, "problem_of", lambda server, model, timeout: self.answers.get(server))
        self.plan([A, B])

    def plan(self, servers: list[str], drained: list[str] | None = None, **more: Any) -> None:
        """What the role writes."""
        models = [{**MODELS[1], "servers": servers, "drained": drained or [], **more}]
        (self.root / "pools.json").write_text(json.dumps(gateway_pools(models, FAILS, PASSES, 5, False)))

    def run(self, *more: str) -> int:
        words = [f"--wanted={self.root}/pools.json", f"--pools={self.root}/pools", f"--state-dir={self.root}"]
        status: int = main([*words, f"--lock={self.root}/lock", f"--metrics={self.root}/m.prom", *more])
        return status

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().split() if path.exists() else []

    @property
    def pool(self) -> str:
        return (self.root / "pools/redoubt_0.conf").read_text()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = Gateway(tmp_path, monkeypatch)
    assert made.run("--write") == 0
    assert made.calls == []
    return made


def test_nginx_is_reloaded_once_for_each_change(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        assert gateway.run() == 0
    assert gateway.calls == []
    gateway.answers = {A: "refused"}
    for _ in range(6):
        assert gateway.run() == 0
    assert gateway.calls == ["check", "reload"]
    assert f"server {A} down;" in gateway.pool
    assert f"server {B} max_fails" in gateway.pool
    assert capsys.readouterr().out == f"<4>{A} of redoubt_0 is out: refused\n"
    assert f'redoubt_gateway_server_out{{model="large",server="{A}"}} 1' in (gateway.root / "m.prom").read_text()
    gateway.answers = {}
    for _ in range(3):
        assert gateway.run() == 0
    assert gateway.calls == ["check", "reload"] * 2
    assert "down" not in gateway.pool


def test_last_canary_is_taken_out_and_the_last_of_the_others_is_not(gateway: Gateway) -> None:
    gateway.plan([A], canary={"servers": [C], "percent": 5})
    gateway.answers = {A: "silent", C: "silent"}
    for _ in range(FAILS):
        assert gateway.run() == 0
    assert f"server {A} max_fails" in gateway.pool
    canary = (gateway.root / "pools/redoubt_0_canary.conf").read_text().splitlines()[1:]
    assert [line.partition(";")[0] for line in canary] == [f"server {C} down", f"server {A} backup"]


def test_what_nginx_refuses_is_put_back_and_tried_again(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    before = gateway.pool
    gateway.answers = {A: "refused"}
    gateway.refused.touch()
    assert [gateway.run() for _ in range(4)] == [0, 0, 1, 1]
    assert gateway.pool == before
    assert "reload" not in gateway.calls
    assert "the pools stay as they were" in capsys.readouterr().out
    gateway.refused.unlink()
    assert gateway.run() == 0
    assert f"server {A} down;" in gateway.pool


def test_role_and_rounds_do_not_undo_each_other(gateway: Gateway) -> None:
    """The role writes the pools anew, with a further host and a drained one: who is out stays out."""
    gateway.answers = {A: "refused"}
    for _ in range(3):
        gateway.run()
    gateway.plan([A, C], [B])
    assert gateway.run("--write") == 0
    assert [line.split()[1:3] for line in gateway.pool.splitlines()[1:]] == [
        [A, "down;"],
        [C, "max_fails=3"],
        [B, "down;"],
    ]
    written = gateway.pool
    assert gateway.run() == 0
    assert gateway.pool == written
    assert gateway.calls == ["check", "reload"]


def test_round_waits_for_whoever_changes_the_configuration(gateway: Gateway) -> None:
    gateway.answers = {A: "refused"}
    with only_run(gateway.root / "lock", "a test", 1):
        assert [gateway.run() for _ in range(4)] == [0] * 4
    assert not (gateway.root / "state.json").exists()


def test_lost_memory_takes_nobody_out(gateway: Gateway) -> None:
    gateway.answers = {A: "refused"}
    for _ in range(3):
        gateway.run()
    (gateway.root / "state.json").write_text('{"run": 1, "pools": {"redoubt_0": {"x": {"y": 1}}}}')
    assert gateway.run() == 0
    assert "down" not in gateway.pool


def test_doctor_says_who_is_out(gateway: Gateway) -> None:
    look = POOL_KINDS["pool_health"]
    check = {"wanted": str(gateway.root / "pools.json"), "state_dir": str(gateway.root), "max_seconds": 900}
    assert look(check)[0] is False  # never asked yet
    gateway.run()
    ok, told = look(check)
    assert (ok, told.partition(" answered ")[0]) == (True, "2 servers")
    assert look({**check, "max_seconds": -1})[0] is False
    gateway.answers = {A: "refused", B: "refused"}
    for _ in range(3):
        gateway.run()
    ok, told = look(check)
    assert ok is False
    assert "is out since" in told
    assert "is the last one, but: refused" in told
    assert look({**check, "wanted": "/none"}) == (True, "not wanted (gateway_health_checks)")


def test_doctor_looks_at_every_gateway() -> None:
    settings = {"min_free_percent": 5, "certificate": "/c", "secret_patterns": []}
    plan: dict[str, Any] = {"weights": [], "engines": [], "gateway": {"models": []}}
    kinds = {check["id"]: check for check in doctor_inside_checks(plan, settings)}
    assert kinds["gateway.servers"]["kind"] in POOL_KINDS


@pytest.mark.parametrize(("variable", "value"), [("seconds", 4), ("timeout", 0), ("fails", "3"), ("passes", True)])
def test_numbers_out_of_bounds_are_refused(variable: str, value: Any) -> None:
    found = gateway_problems({f"gateway_health_{variable}": value})
    assert any(f"gateway_health_{variable}: {value!r} must be a whole number" in line for line in found)


def test_generation_is_asked_by_the_plainest_route() -> None:
    routes = [{"path": f"/v1/{name}", "methods": ["POST"]} for name in ("chat/completions", "completions")]
    models = [
        {**MODELS[0], "name": name, "routes": rows} for name, rows in zip("abc", (routes, routes[:1], []), strict=True)
    ]
    found = gateway_pools(models, FAILS, PASSES, 5, True)["models"]
    assert [row["generation"] for row in found] == ["/v1/completions", "/v1/chat/completions", ""]
