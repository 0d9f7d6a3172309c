"""From a bundle on a medium to the first token behind the gap, phase by phase; and eight hosts that share one depot."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import hosts
from lab.report import PlainReport
from tests.bench.results import record
from tests.support.airgap import FAR_KEY, FAR_SITE, MEDIUM, GapSite, opened
from tests.support.site import REPOSITORY

MANY = 8
LINE = re.compile(r"^\[(\d+):(\d+)\] ([^|]+) \|", re.MULTILINE)
STEP = re.compile(r"^\[ *([\d.]+) s\] (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def carried() -> Iterator[GapSite]:
    """A site with its bundle on the medium and nothing behind the gap yet."""
    with opened("bench-gap-control", "bench-gap-target", REPOSITORY / ".runs/bench-airgap") as site:
        run = site.near("play", "lock", "-i", str(site.folder / "hosts.json"))
        assert run.status == 0, run.output[-6000:]
        site.build(site.medium)
        site.bring_key("redoubt")
        yield site


def phases(output: str) -> dict[str, int]:
    """Seconds until the last task of each play had ended, from what `play` prints."""
    ends: dict[str, int] = {}
    for minutes, seconds, name in LINE.findall(output):
        ends[name] = int(minutes) * 60 + int(seconds)
    return ends


def timed(site: GapSite, command: str) -> tuple[float, str]:
    """Seconds and output of a command on the far control host."""
    start = time.monotonic()
    run = site.far(command)
    assert run.status == 0, run.output[-6000:]
    return time.monotonic() - start, run.output


@pytest.mark.slow
def test_from_the_medium_to_the_first_token(carried: GapSite) -> None:
    size = sum(path.stat().st_size for path in carried.medium.rglob("*") if path.is_file())
    start = time.monotonic()
    control, said = timed(carried, f"python3 {MEDIUM}/install.pyz --key {FAR_KEY}")
    carried.write_far()
    begun = time.monotonic()
    run = carried.far_play("site")
    assert run.status == 0, run.output[-6000:]
    site = time.monotonic() - begun
    carried.fetch_ca()
    asked = time.monotonic()
    assert next(carried.stream("What is the capital of France?"))
    figures: dict[str, Any] = {
        "bundle_bytes": size,
        "control_host": {text: float(seconds) for seconds, text in STEP.findall(said)},
        "control_host_seconds": round(control),
        "site_seconds_at_end_of_play": phases(run.output),
        "site_seconds": round(site),
        "first_token_seconds": round(time.monotonic() - asked, 2),
        "total_seconds": round(time.monotonic() - start),
    }
    record("airgap", figures)


def write_many(site: GapSite, many: list[hosts.Host]) -> None:
    """An inventory behind the gap in which all these hosts serve the model."""
    site.write_far()
    document = json.loads(site.on(site.control.name, f"cat {FAR_SITE}/hosts.json"))
    groups = document["all"]["children"]
    (pattern,) = groups["inference"]["hosts"].values()
    own = {"ansible_host", "redoubt_private_address"}
    groups["inference"]["hosts"] = {host.name: pattern | dict.fromkeys(own, host.address) for host in many}
    for group in ("gateways", "monitoring"):
        groups.pop(group)
    known = "".join(host.known_hosts_file.read_text() for host in many)
    for name, text in {"hosts.json": json.dumps(document), "known_hosts": known}.items():
        site.on(site.control.name, f"cat > {FAR_SITE}/{name} <<'EOF'\n{text}\nEOF\n")


@pytest.mark.slow
def test_eight_hosts_share_one_depot(carried: GapSite) -> None:
    """Packages, images and weights of one empty host, then of eight others at once."""
    timed(carried, f"python3 {MEDIUM}/install.pyz --key {FAR_KEY}")
    carried.write_far()
    run = carried.far_play("site", "--limit", carried.control.name)  # the depot's server
    assert run.status == 0, run.output[-6000:]
    names = [f"bench-gap-{number}" for number in range(MANY + 1)]
    seconds: dict[str, float] = {}
    try:
        made = [hosts.up(name, gap=True, media=False, report=PlainReport()) for name in names]
        carried.hosts.update({host.name: host for host in made})
        for these in (made[:1], made[1:]):
            write_many(carried, these)
            start = time.monotonic()
            for playbook in ("host", "weights"):
                run = carried.far_play(playbook)
                assert run.status == 0, run.output[-6000:]
            seconds[str(len(these))] = round(time.monotonic() - start, 1)
    finally:
        for name in names:
            carried.hosts.pop(name, None)
            hosts.down(name)
    each = carried.on(carried.control.name, "du -sb /srv/redoubt/depot/blobs | cut -f1").strip()
    record("depot_hosts", {"seconds": seconds, "depot_bytes": int(each), "cores": 2})
