"""What is measured, and who is told."""

from __future__ import annotations

import time
from typing import Any

from tests.support import dashboards
from tests.support.site import MODEL, Site


def wait_for(what: str, seconds: int, probe: Any) -> Any:
    """Ask until the answer is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(3)


def test_all_targets_are_up(site: Site) -> None:
    def all_up() -> list[Any]:
        active = site.fetch("http://127.0.0.1:9090/api/v1/targets?state=active")["data"]["activeTargets"]
        return active if active and all(t["health"] == "up" for t in active) else []

    jobs = {target["scrapePool"] for target in wait_for("target set that is all up", 90, all_up)}
    assert len(jobs) >= 5, jobs


def test_every_query_of_the_dashboards_finds_data(site: Site) -> None:
    for _ in range(3):
        list(site.stream("Say hello."))  # so that there is something to see
    ask = dashboards.ask_remotely("http://127.0.0.1:9090", lambda command: site.on(site.main, command))
    active = site.fetch("http://127.0.0.1:9090/api/v1/targets?state=active")["data"]["activeTargets"]
    boards = dashboards.installed({target["labels"]["job"] for target in active})
    assert len(boards) >= 2

    deadline = time.monotonic() + 180
    while True:
        missing = dashboards.problems(dashboards.run(boards, ask))
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(5)  # rates need a few scrapes
    assert missing == []


def test_a_stopped_engine_makes_its_alert_fire_in_alertmanager(site: Site) -> None:
    container = f"redoubt-{MODEL}"
    site.on(site.main, f"docker stop --time 5 {container}")
    try:

        def firing() -> list[str]:
            alerts = site.fetch("http://127.0.0.1:9093/api/v2/alerts")
            return [a["labels"]["alertname"] for a in alerts if a["labels"].get("model") == MODEL]

        names = wait_for("alert for the stopped engine", 240, firing)
        assert "EngineDown" in names
        answer = site.ask("POST", "/v1/completions", {"model": MODEL, "prompt": "1", "max_tokens": 1})
        assert answer.status in (502, 503, 504)
        assert answer.json()["error"]["message"]
        run = site.play("playbooks/verify.yml")
        assert run.status != 0
        bad = [c for c in site.verdict()["hosts"][site.main]["checks"] if not c["ok"]]
        assert f"engine.{MODEL}.container" in {c["id"] for c in bad}
        assert all(c["remedy"] for c in bad)
    finally:
        # The repair is the operator's: run the playbook again.
        run = site.play("playbooks/serve.yml")
    assert run.status == 0, run.output[-4000:]
    assert "Paris" in "".join(site.stream("What is the capital of France?"))
