"""The playbooks that prove, clean and list a depot, as an operator runs them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from ansible.module_utils.depot.depot import Depot

from tests.support.bundles import depot_at
from tests.support.depot_plays import files, play, told
from tests.support.depots import LockMaker, small

OURS, THEIRS = "bank-north", "bank-south"


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    """A depot of two sites, and bytes that neither refers to."""
    ours, theirs = small(OURS), LockMaker(THEIRS)
    theirs.package("jq", "1.7.1-6", b"jq" * 5000)
    made = depot_at(tmp_path / "depot", ours.contents)
    for lock in (ours.lock(), theirs.lock()):
        for sha256, data in {**ours.contents, **theirs.contents}.items():
            made.add_blob(io.BytesIO(data), sha256, len(data))
        made.publish(lock)
    return made


def stray(depot: Depot, size: int = 7000) -> str:
    """Add bytes that no lock refers to; return their SHA-256."""
    made = LockMaker()
    sha256 = str(made.keep(os.urandom(size))["sha256"])
    depot.add_blob(io.BytesIO(made.contents[sha256]), sha256, size)
    return sha256


def names(depot: Depot) -> set[str]:
    return {item.name for item in depot.blobs.every()}


def test_a_damaged_blob_is_named_and_set_aside_on_demand(depot: Depot, tmp_path: Path) -> None:
    good = play(tmp_path, "depot_verify", depot.root)
    assert (good.status, good.changed) == (0, 0)
    row = (depot.lock(OURS) or {})["models"]["smol"]["files"][1]
    path = depot.blobs.path(row["sha256"])
    path.chmod(0o644)
    path.write_bytes(bytes(row["size"]))
    before = files(depot.root)
    for options in ((), ("--check", "-e", "depot_verify_set_aside=true")):
        bad = play(tmp_path, "depot_verify", depot.root, *options)
        assert bad.status != 0
        assert f"blobs/sha256/{path.parent.name}/{path.name}: its bytes have" in bad.words
        assert "with the playbook gather, or with a bundle" in bad.words
        assert files(depot.root) == before
    assert play(tmp_path, "depot_verify", depot.root, depot_verify_deep=False).status == 0
    assert play(tmp_path, "depot_verify", depot.root, depot_verify_set_aside=True).status != 0
    assert not path.exists()


def test_only_what_no_lock_refers_to_is_removed(depot: Depot, tmp_path: Path) -> None:
    kept = names(depot)
    extra = stray(depot)
    forecast = play(tmp_path, "depot_collect", depot.root, "--check")
    assert (forecast.status, forecast.changed) == (0, 1)
    assert names(depot) == kept | {extra}
    done = play(tmp_path, "depot_collect", depot.root)
    assert (done.status, done.changed) == (0, 1)
    assert told(forecast) == told(done).replace("are free", "would be free") == "6.84 KB would be free again"
    assert names(depot) == kept
    again = play(tmp_path, "depot_collect", depot.root)
    assert (again.status, again.changed) == (0, 0)
    assert depot.verify(deep=True) == []


def test_a_site_goes_with_what_it_alone_has(depot: Depot, tmp_path: Path) -> None:
    ours = set(small(OURS).contents) & names(depot)
    forecast = play(tmp_path, "depot_collect", depot.root, "--check", depot_withdraw=THEIRS)
    assert (forecast.status, forecast.changed) == (0, 2)
    assert depot.records.sites() == [OURS, THEIRS]
    done = play(tmp_path, "depot_collect", depot.root, depot_withdraw=THEIRS)
    assert (done.status, done.changed) == (0, 2)
    assert told(forecast) == told(done).replace("are free", "would be free")
    assert depot.records.sites() == [OURS]
    assert ours <= names(depot)
    assert (depot.root / "sites" / OURS).is_dir()
    assert not (depot.root / "sites" / THEIRS).exists()
    assert depot.verify(deep=True) == []


def test_the_list_is_what_the_depot_holds(depot: Depot, tmp_path: Path) -> None:
    out = tmp_path / "list.json"
    forecast = play(tmp_path, "depot_inventory", depot.root, "--check", depot_inventory_file=str(out))
    assert forecast.status == 0
    assert not out.exists()
    done = play(tmp_path, "depot_inventory", depot.root, depot_inventory_file=str(out))
    assert done.status == 0
    listed = json.loads(out.read_text())
    assert listed == depot.inventory()
    assert set(listed["sites"]) == {OURS, THEIRS}
    assert listed["blobs"] == {path.name: path.stat().st_size for path in depot.root.glob("blobs/sha256/*/*")}
    assert told(done) == f"{out}: {len(listed['blobs'])} files"
    assert play(tmp_path, "depot_inventory", depot.root, depot_inventory_file=str(out)).changed == 0
