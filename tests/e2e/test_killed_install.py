"""A first installation that is cut off in every phase, on one empty host; the next run takes it up and ends it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from lab import hosts
from tests.support.site import Site

Cut = Callable[[Site, int], None]


def _control(sent: signal.Signals) -> Cut:
    """The control process dies; what it had begun on the host goes on there, as it would in life."""

    def cut(_: Site, group: int) -> None:
        os.killpg(group, sent)

    return cut


def _package_tools(site: Site, group: int) -> None:
    """The control process dies, and so do apt and dpkg in the middle of unpacking."""
    # apt-get may have given up by itself when its dpkg died.
    site.on(site.main, "until pkill -KILL -x dpkg; do sleep 0.05; done; pkill -KILL -x apt-get || true", timeout=120)
    os.killpg(group, signal.SIGKILL)


def _power(site: Site, _: int) -> None:
    """The host loses its power."""
    hosts.restart(site.main, hard=True)


@pytest.mark.parametrize(
    ("task", "cut"),
    [
        ("common : packages | Install the base packages", _control(signal.SIGINT)),
        ("docker : packages | Install the engine and Compose", _package_tools),
        ("docker : Configure and start the engine", _control(signal.SIGKILL)),
        ("images : Bring the images", _power),
        ("weights : bring | Bring the weights", _control(signal.SIGKILL)),
        ("inference : Put the release into service", _control(signal.SIGTERM)),
        ("gateway : Install the gateway configuration", _control(signal.SIGKILL)),
        ("monitoring : Install the monitoring stack", _control(signal.SIGINT)),
    ],
)
def test_the_next_run_gets_past_where_this_one_is_cut_off(broken_site: Site, task: str, cut: Cut) -> None:
    with broken_site.start("site.yml") as process:
        log = broken_site.logs[-1]
        deadline = time.monotonic() + 900
        while f"TASK [{task}]" not in log.read_text(errors="replace"):
            assert process.poll() is None, f"ended before {task}: {log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"{task} was not reached: {log.read_text()[-4000:]}"
            time.sleep(0.1)
        time.sleep(0.5)  # in the middle of it
        assert process.poll() is None
        cut(broken_site, process.pid)
        process.wait(120)
    assert process.returncode != 0


def test_one_more_run_ends_it_well(broken_site: Site) -> None:
    run = broken_site.play("site.yml")
    assert run.status == 0, run.output[-6000:]
    assert "Paris" in "".join(broken_site.stream("What is the capital of France?"))


def test_and_leaves_nothing_to_do(broken_site: Site) -> None:
    run = broken_site.play("site.yml")
    assert run.status == 0, run.output[-6000:]
    changed = [line for line in run.output.splitlines() if line.startswith("changed")]
    assert run.recap()[broken_site.main]["changed"] == 0, changed
    leftovers = "find /etc /opt/redoubt /srv/redoubt /var/lib/redoubt -name '.staged-*' -o -name '*.dpkg-new'"
    assert broken_site.on(broken_site.main, f"{leftovers}; dpkg --audit") == ""


def test_the_doctor_finds_it_well(broken_site: Site) -> None:
    run = broken_site.play("playbooks/verify.yml")
    assert run.status == 0, run.output[-6000:]
