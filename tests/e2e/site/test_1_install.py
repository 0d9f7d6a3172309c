"""From an empty host to a running site, and nothing more to do the second time."""

from __future__ import annotations

import pytest

from tests.support.site import FINGERPRINT, Site


def test_check_mode_succeeds_on_an_empty_host_and_changes_nothing(site: Site) -> None:
    before = site.on(site.main, FINGERPRINT)
    run = site.play("site.yml", "--check", "--diff")
    assert run.status == 0, run.output[-6000:]
    assert run.recap()[site.main]["changed"] > 5, "a check that foresees no change on an empty host saw nothing"
    assert site.on(site.main, FINGERPRINT) == before


def test_the_whole_run_succeeds(site: Site) -> None:
    run = site.play("site.yml")
    assert run.status == 0, run.output[-6000:]
    assert run.recap()[site.main]["failed"] == 0


def test_the_second_run_changes_nothing(site: Site) -> None:
    run = site.play("site.yml")
    assert run.status == 0, run.output[-6000:]
    recap = run.recap()[site.main]
    assert recap["changed"] == 0, [line for line in run.output.splitlines() if line.startswith("changed")]


def test_check_mode_on_the_finished_host_foresees_nothing(site: Site) -> None:
    run = site.play("site.yml", "--check")
    assert run.status == 0, run.output[-6000:]
    assert run.recap()[site.main]["changed"] == 0


def test_the_doctor_says_ok(site: Site) -> None:
    run = site.play("playbooks/verify.yml")
    assert run.status == 0, run.output[-6000:]
    verdict = site.verdict()
    assert verdict["ok"] is True
    checks = verdict["hosts"][site.main]["checks"]
    assert len(checks) > 15
    assert all({"id", "ok", "detail", "remedy"} <= set(check) for check in checks)


@pytest.mark.parametrize("playbook", ["host", "weights", "serve", "gateway", "monitoring"])
def test_each_playbook_runs_alone(site: Site, playbook: str) -> None:
    run = site.play(f"playbooks/{playbook}.yml", "--check")
    assert run.status == 0, run.output[-6000:]
    assert run.recap()[site.main]["changed"] == 0
