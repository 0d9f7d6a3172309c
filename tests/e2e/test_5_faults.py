"""Broken runs, killed runs, a reboot without a network."""

from __future__ import annotations

import os
import signal
import time

import pytest

from lab import hosts
from tests.support.site import Site


def _ask_until_right(site: Site, seconds: int) -> float:
    """Seconds until the model answers rightly through the gateway; fails after `seconds`."""
    started = time.monotonic()
    while True:
        try:
            if "Paris" in "".join(site.stream("What is the capital of France?")):
                return time.monotonic() - started
        except (OSError, AssertionError):
            pass
        assert time.monotonic() - started < seconds, f"no right answer within {seconds} s"
        time.sleep(2)


@pytest.mark.parametrize("word", ["TERM", "KILL"])
def test_a_run_that_is_killed_half_way_is_finished_by_the_next(site: Site, word: str) -> None:
    # Something to do in several phases, and a kill in the middle of them.
    change = ["-e", f"gateway_max_body_size={20 if word == 'TERM' else 21}m"]
    process = site.start("site.yml", *change)
    deadline = time.monotonic() + 120
    while "TASK [gateway : " not in site.logs[-1].read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, site.logs[-1].read_text()[-3000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM if word == "TERM" else signal.SIGKILL)
    process.wait(60)
    assert process.returncode != 0
    run = site.play("site.yml", *change)
    assert run.status == 0, run.output[-4000:]
    again = site.play("site.yml", *change)
    assert again.recap()[site.main]["changed"] == 0
    assert _ask_until_right(site, 60) < 60


def test_after_a_restart_without_a_network_it_serves_again(site: Site) -> None:
    assert site.play("site.yml").status == 0
    hosts.seal(site.main)
    try:
        hosts.restart(site.main)
        way_out = site.on(site.main, "ip route show default", check=False)
        assert way_out.strip() == "", way_out
        assert _ask_until_right(site, 180) < 180
    finally:
        hosts.unseal(site.main)
    assert site.play("playbooks/verify.yml").status == 0
