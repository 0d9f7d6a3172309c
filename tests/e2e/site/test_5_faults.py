"""Broken runs, killed runs, a reboot without a network."""

from __future__ import annotations

import os
import signal
import time

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


def _reaches_package_sources(site: Site) -> bool:
    options = (
        "-o APT::Update::Error-Mode=any -o Acquire::Retries=0 -o Acquire::http::Timeout=5 -o Acquire::https::Timeout=5"
    )
    return "reached" in site.on(site.main, f"timeout 60 apt-get -qq {options} update && echo reached", check=False)


def test_a_change_that_is_killed_half_way_is_finished_by_the_next_run(site: Site) -> None:
    change = ["-e", "gateway_max_body_size=21m"]
    process = site.start("site.yml", *change)
    deadline = time.monotonic() + 120
    while "TASK [gateway : " not in site.logs[-1].read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, site.logs[-1].read_text()[-3000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    run = site.play("site.yml", *change)
    assert run.status == 0, run.output[-4000:]
    assert "21m" in site.on(site.main, "nginx -T 2>/dev/null | grep client_max_body_size")
    assert _ask_until_right(site, 60) < 60


def test_after_a_restart_without_a_network_it_serves_again(site: Site) -> None:
    assert site.play("site.yml").status == 0
    assert _reaches_package_sources(site), "the host has no way out before it is sealed: this test would prove nothing"
    hosts.seal(site.main)
    try:
        hosts.restart(site.main)
        assert not _reaches_package_sources(site)
        assert _ask_until_right(site, 180) < 180
    finally:
        hosts.unseal(site.main)
    assert site.play("playbooks/verify.yml").status == 0
