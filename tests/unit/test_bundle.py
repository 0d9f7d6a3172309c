"""The whole way of a bundle: built, signed, verified, imported; from whole volumes, in parts, and as a delta."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle.building import Wishes, build
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.document import contents
from ansible.module_utils.bundle.importing import Incomplete, bring
from ansible.module_utils.bundle.planning import against, plan
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.lock.document import canonical, sealed

from tests.support.bundles import Site, depot_at, medium, several, site, volumes
from tests.support.lock_documents import changed


@pytest.fixture
def small(tmp_path: Path) -> Site:
    return site(tmp_path)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_far_depot_gets_what_the_near_one_had(small: Site) -> None:
    small.build()
    report = verify(small.bundle, [small.public])
    assert (report.exit_code, report.faults) == (0, [])
    assert bring(small.bundle, small.far, [small.public]).site == "bank-north"
    assert small.published() == small.lock
    assert small.far.verify(deep=True) == []
    assert small.far.inventory()["blobs"] == contents(small.lock)


def test_the_same_lock_gives_the_same_bytes(small: Site, tmp_path: Path) -> None:
    small.build()
    small.build(out=tmp_path / "again")
    assert everything(small.bundle) == everything(tmp_path / "again")
    before = everything(small.bundle)
    assert build(small.near, small.lock, small.bundle).written == 0
    assert everything(small.bundle) == before


def test_the_second_import_changes_nothing(small: Site) -> None:
    small.build()
    assert small.bring().changed
    assert not small.bring().changed


def test_volumes_come_in_any_order_and_nothing_is_seen_before_the_last(tmp_path: Path) -> None:
    made = several(tmp_path)
    names = volumes(made)
    assert len(names) > 2
    for path in made.bundle.glob("volume-*"):
        assert sum(file.stat().st_size for file in path.iterdir()) < 2_500_000
    assert verify(made.bundle, [made.public]).exit_code == 0
    for count, name in enumerate(reversed(names), 1):
        stick = medium(made, tmp_path / "stick", name)
        assert verify(stick, [made.public]).exit_code == 1
        assert verify(stick, [made.public], partial=True).exit_code == 0
        if count < len(names):
            with pytest.raises(Incomplete, match="still to come"):
                made.bring(stick)
            assert made.published() is None
        else:
            assert made.bring(stick).absent == []
        shutil.rmtree(stick)
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_a_delta_leaves_out_what_the_far_side_has(small: Site, tmp_path: Path) -> None:
    small.build()
    small.bring()
    data = canonical(small.far.inventory())
    row = small.contents.keep(b"a new curl" * 50)  # type: ignore[attr-defined]  # the support's own mapping
    small.near.add_blob(_file(tmp_path, b"a new curl" * 50), row["sha256"], row["size"])

    def newer(body: dict) -> None:  # type: ignore[type-arg]  # any lock
        rows = body["platforms"]["debian-13-amd64"]["packages"]
        index = next(number for number, item in enumerate(rows) if item["name"] == "curl")
        rows[index] = {**rows[index], "version": "8.15.0-1", "path": "pool/c/curl_8.15.0-1_amd64.deb", **row}

    second = changed(small.lock, newer)
    wishes = Wishes(against=against(data, "inventory.json"))
    built = small.build(second, tmp_path / "delta", wishes)
    assert built.manifest.kind == "delta"
    assert list(built.manifest.carried) == [row["sha256"]]
    with pytest.raises(Refusal, match="lacks"):
        bring(tmp_path / "delta", _empty(tmp_path), [small.public])
    assert small.bring(tmp_path / "delta").brought == row["size"]
    assert small.published() == second
    former = against((small.bundle / "manifest.json").read_bytes(), "manifest.json")
    assert plan(second, (), former)["totals"]["all"]["carried_bytes"] == row["size"]


def test_older_and_foreign_bundles_are_refused(small: Site, tmp_path: Path) -> None:
    small.build()
    second = changed(small.lock, lambda body: body.update(keys=[]))
    small.build(second, tmp_path / "second")
    small.bring(tmp_path / "second")
    with pytest.raises(Refusal, match="--allow-older"):
        small.bring()
    assert small.published() == second
    with pytest.raises(Refusal, match="site other was asked for"):
        small.bring(tmp_path / "second", site="other")
    body = {key: value for key, value in small.lock.items() if key not in ("schema", "serial", "digest", "site")}
    small.build(sealed(body, "bank-south"), tmp_path / "south")
    with pytest.raises(Refusal, match="this depot serves bank-north"):
        small.bring(tmp_path / "south")
    assert small.far.records.sites() == ["bank-north"]
    assert small.bring(allow_older=True).serial == small.lock["serial"]
    assert small.published() == small.lock


def test_a_build_refuses_a_folder_of_something_else(small: Site, tmp_path: Path) -> None:
    small.build()
    with pytest.raises(Refusal, match="empty the folder"):
        build(small.near, changed(small.lock, lambda body: body.update(keys=[])), small.bundle)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(Refusal, match=r"letter\.txt"):
        build(small.near, small.lock, tmp_path / "home")


def test_a_build_names_what_the_depot_lacks(small: Site, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"package curl 8\.14\.1-2: packages/debian-13-amd64/pool/c/curl"):
        build(_empty(tmp_path), small.lock, tmp_path / "out")


def _empty(folder: Path) -> Depot:
    return depot_at(folder / "empty")


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "bytes"
    path.write_bytes(data)
    return path
