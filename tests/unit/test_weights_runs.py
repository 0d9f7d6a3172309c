"""Runs that cannot, that come twice, that were cut short; what a run would do; and removing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.artifacts import settling
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, planned, present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.survey import Stamp
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.run_lock import Busy

from tests.support.tiny_model import FILES, Site
from tests.support.weight_trees import REVISIONS, digest, model, write_tree


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_too_small_a_disk_is_told_before_anything_is_copied(site: Site) -> None:
    disk = os.statvfs(site.source)
    reserve = disk.f_bavail * disk.f_frsize
    with pytest.raises(Refusal, match=r"needs \d+ more bytes: 150002 for files"):
        site.bring(reserve_bytes=reserve + (1 << 30))
    assert not site.published.exists()


class Disk:
    """A disk with so much room, whatever the real one has."""

    f_frsize = 1

    def __init__(self, free: int) -> None:
        self.f_bavail = free


def test_room_is_wanted_only_for_what_is_still_missing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is published, one only in the store, and of one a part lies where an earlier run has put it."""
    site.bring()
    for name in ("shards/1.dat", "shards/2.dat"):
        (site.published / name).unlink()
    blob = site.store.blobs.path(digest(FILES["shards/2.dat"]))
    blob.unlink()
    with (site.store.blobs.partial / blob.name).open("wb") as stream:
        stream.write(FILES["shards/2.dat"][: 6 * 4096])
        os.fsync(stream.fileno())  # until then its blocks may not be counted
        room = 50_000 - os.fstat(stream.fileno()).st_blocks * 512
    assert 0 < room < 50_000
    monkeypatch.setattr(settling.os, "statvfs", lambda path: Disk(room - 1))
    with pytest.raises(Refusal, match=rf"needs 1 more bytes: {room} for files"):
        site.bring()
    monkeypatch.setattr(settling.os, "statvfs", lambda path: Disk(room))
    assert site.bring()[1][0].fetched == ["shards/2.dat"]
    assert site.contents() == FILES


def test_second_run_at_the_same_time_is_refused(site: Site) -> None:
    site.store.prepare()
    with site.store.locked(), pytest.raises(Busy, match=r"another run \(process \d+ of .*\) is working on .*/models"):
        site.bring()
    assert site.bring()[0] is True


def test_staged_files_of_a_run_cut_short_are_proved_and_taken_over(site: Site) -> None:
    staged = site.store.incoming / "tiny" / REVISIONS[0][:12]
    write_tree(staged / "tree", {"shards/1.dat": FILES["shards/1.dat"], "config.json": b"[]"})
    write_tree(staged / "tree", {"stray": b"1", "shards/.ansible_tmp1": b"2"})
    write_tree(staged / "parts", {"7": b"half"})
    (staged / "tree/shards").chmod(0o555)
    write_tree(site.store.incoming / "gone" / REVISIONS[1][:12], {"tree/a": b"1"})
    write_tree(site.store.incoming / ".trash-1", {"it": b"1"})
    _, (outcome,) = site.bring()
    assert outcome.bytes_reused == 100_000
    assert outcome.bytes_copied == 50_002
    assert site.contents() == FILES
    assert [path for path in site.store.incoming.rglob("*") if path.is_file()] == []


def test_run_that_died_between_publishing_and_stamping(site: Site) -> None:
    site.bring()
    site.store.stamp(parse_models([model(FILES)])[0]).unlink()
    site.store.ledger_file.unlink()
    site.published.chmod(0o700)
    changed, (outcome,) = site.bring()
    assert (changed, outcome.bytes_copied, outcome.bytes_hashed) == (True, 0, 150_002)
    assert site.bring()[0] is False


def test_plan_for_the_control_host_names_what_is_needed_and_where_it_goes(site: Site) -> None:
    models = parse_models([model(FILES)])
    pending, needed = planned(site.store, models, Settings())
    assert pending
    assert {item["path"] for item in needed} == set(FILES)
    with pytest.raises(Refusal, match="from the control host: did not arrive"):
        present(site.store, models, None, Settings())
    for item in needed:
        assert item["folder"].endswith("/")
        write_tree(Path(item["folder"]), {Path(item["path"]).name: FILES[item["path"]]})
    changed, (outcome,) = present(site.store, models, None, Settings())
    assert (changed, outcome.bytes_reused) == (True, 150_002)
    assert planned(site.store, models, Settings()) == (False, [])
    (site.published / "config.json").chmod(0o644)
    assert planned(site.store, models, Settings()) == (True, [])


def test_absent_removes_one_revision_or_all(site: Site) -> None:
    site.bring()
    site.bring([model(FILES, revision=REVISIONS[1])])
    assert absent(site.store, [("tiny", REVISIONS[1])], Settings(check=True)) == [
        str(site.store.models / "tiny" / REVISIONS[1][:12])
    ]
    assert len(absent(site.store, [("tiny", REVISIONS[1])], Settings())) == 1
    assert site.contents() == FILES
    assert len(absent(site.store, [("tiny", None)], Settings())) == 1
    assert not (site.store.models / "tiny").exists()
    assert Stamp.read(site.store.state / "tiny" / f"{REVISIONS[0][:12]}.json") == Stamp()
    assert absent(site.store, [("tiny", None)], Settings()) == []


def test_missing_model_is_one_fault(site: Site) -> None:
    verdict = site.verdict()
    assert verdict["ok"] is False
    assert [fault["kind"] for fault in verdict["faults"]] == ["missing"]


@pytest.mark.parametrize(
    "address", ["", "media/models", "file://media", "ftp://x/y", "http://", "https://x/?a=1", "s3://b", "file:relative"]
)
def test_odd_source_is_refused_with_the_forms_that_work(address: str) -> None:
    with pytest.raises(Refusal, match="weights_source is"):
        make_sources([address], "weights_source", Network())
