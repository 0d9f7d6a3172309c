"""The second command behind the gap: the whole site from the depot, its doctor, its answers, a reboot."""

from __future__ import annotations

import json

from lab import hosts
from tests.support.airgap import FAR_SITE, NAME, PLATFORM, GapSite


def test_the_whole_run_succeeds(gap: GapSite) -> None:
    gap.write_far()
    run = gap.far_play("site")
    assert run.status == 0, run.output[-6000:]
    gap.fetch_ca()


def test_the_model_answers_through_the_gateway(gap: GapSite) -> None:
    assert "Paris" in gap.answered(60)


def test_the_doctor_says_ok(gap: GapSite) -> None:
    run = gap.far_play("verify")
    assert run.status == 0, run.output[-6000:]
    assert json.loads(gap.on(gap.control.name, f"cat {FAR_SITE}/verdict.json"))["ok"] is True


def test_the_second_run_changes_nothing(gap: GapSite) -> None:
    before = gap.on(gap.main, "docker ps --format '{{.ID}} {{.Names}}' | sort; readlink /opt/redoubt/current")
    run = gap.far_play("site")
    assert run.status == 0, run.output[-6000:]
    for name in gap.hosts:
        (line,) = [line for line in run.output.splitlines() if line.startswith(f"{name}: ok ")]
        assert "changed" not in line, run.output[-6000:]
    assert gap.on(gap.main, "docker ps --format '{{.ID}} {{.Names}}' | sort; readlink /opt/redoubt/current") == before


def test_every_byte_came_from_the_depot(gap: GapSite) -> None:
    told = json.loads(gap.on(gap.main, "cat /etc/redoubt/packages.json"))
    lock = json.loads(gap.on(gap.control.name, f"cat /srv/redoubt/depot/locks/{NAME}.json"))
    assert (told["mode"], told["platform"], told["lock_digest"]) == ("strict", PLATFORM, lock["digest"])
    versions = {row["name"]: row["version"] for row in lock["platforms"][PLATFORM]["packages"]}
    installed = dict(
        line.split() for line in gap.on(gap.main, "dpkg-query -W -f='${Package} ${Version}\\n'").splitlines()
    )
    for name in ("docker.io", "nginx", "openssl"):
        assert installed[name] == versions[name]
    source = gap.on(gap.main, "cat /etc/apt/redoubt/depot.sources")
    assert f"https://{gap.control.address}:8443/{NAME}/packages/{PLATFORM}" in source
    assert "trusted" not in source.lower()
    images = set(gap.on(gap.main, "docker image ls --no-trunc --format '{{.ID}}'").split())
    assert images == {row["config_digest"] for row in lock["images"].values()} & images
    assert len(images) >= 5


def test_it_survives_a_reboot(gap: GapSite) -> None:
    hosts.restart(gap.main)
    assert "Paris" in gap.answered(240)
    run = gap.far_play("verify")
    assert run.status == 0, run.output[-6000:]


def test_not_one_packet_wanted_out(gap: GapSite) -> None:
    assert gap.watch is not None
    assert gap.watch.count() == 0, gap.watch.report()
    assert gap.watch.attempts() == []
