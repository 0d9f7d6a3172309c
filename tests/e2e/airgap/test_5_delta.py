"""An upgrade by a delta bundle - a new engine configuration and a package more - and the way back without a medium."""

from __future__ import annotations

import json

import pytest

from lab import images, inventory
from tests.support.airgap import CONTROL_FOLDER, FAR_DEPOT, FAR_KEY, MEDIUM, NAME, GapSite

PACKAGE = "jq"
MOST_OF_FULL = 0.02


def in_force(gap: GapSite) -> dict[str, object]:
    """The lock in force in the far depot."""
    lock: dict[str, object] = json.loads(gap.on(gap.control.name, f"cat {FAR_DEPOT}/locks/{NAME}.json"))
    return lock


def slots(gap: GapSite) -> str:
    """How many requests at once the running engine was started for."""
    command = "docker inspect --format '{{join .Config.Cmd \" \"}}' $(docker ps -q --filter name=redoubt-smollm2)"
    words = gap.on(gap.main, command).split()
    return words[words.index("--max-num-seqs") + 1]


@pytest.fixture(scope="module")
def full_size(gap: GapSite) -> int:
    """Bytes of the full bundle, and an empty medium for the delta."""
    size = sum(path.stat().st_size for path in gap.medium.rglob("*") if path.is_file())
    gap.wipe()
    return size


def test_the_delta_carries_only_what_is_new(gap: GapSite, full_size: int) -> None:
    gap.concurrency = 5
    gap.changes = {"common_packages": [PACKAGE]}
    known = inventory.document(gap.hosts.values())["_meta"]["hostvars"]
    gap.write_wishes(known, images.read_lock().document())
    run = gap.near("play", "lock", "-i", str(gap.folder / "hosts.json"))
    assert run.status == 0, run.output[-6000:]
    (gap.folder / "inventory.json").write_text(gap.on(gap.control.name, f"cat {FAR_DEPOT}/inventory.json"))
    gap.build(gap.medium, gap.folder / "inventory.json")
    size = sum(path.stat().st_size for path in gap.medium.rglob("*") if path.is_file())
    assert size <= MOST_OF_FULL * full_size, f"{size} of {full_size} bytes"


def test_the_upgrade_takes_it(gap: GapSite) -> None:
    before = in_force(gap)
    weights = gap.on(gap.main, "find /srv/redoubt/models -type f -printf '%i %T@ %p\\n' | sort")
    run = gap.far(f"python3 {MEDIUM}/install.pyz --key {FAR_KEY}")
    assert run.status == 0, run.output[-6000:]
    assert in_force(gap)["serial"] == int(str(before["serial"])) + 1
    gap.write_far()
    run = gap.far_play("site")
    assert run.status == 0, run.output[-6000:]
    assert slots(gap) == "5"
    assert gap.on(gap.main, f"command -v {PACKAGE}").strip() == f"/usr/bin/{PACKAGE}"
    assert gap.on(gap.main, "find /srv/redoubt/models -type f -printf '%i %T@ %p\\n' | sort") == weights
    assert "Paris" in gap.answered(60)


def test_the_way_back_needs_no_medium(gap: GapSite) -> None:
    gap.wipe()
    now = in_force(gap)
    run = gap.far(f"python3 {CONTROL_FOLDER}/installer --previous")
    assert run.status == 0, run.output[-6000:]
    assert in_force(gap)["serial"] == int(str(now["serial"])) - 1
    gap.concurrency = 4
    gap.changes = {}
    gap.write_far()
    run = gap.far_play("site")
    assert run.status == 0, run.output[-6000:]
    assert slots(gap) == "4"
    assert "Paris" in gap.answered(60)


def test_still_not_one_packet_wanted_out(gap: GapSite) -> None:
    assert gap.watch is not None
    assert gap.watch.count() == 0, gap.watch.report()
    assert gap.watch.attempts() == []
