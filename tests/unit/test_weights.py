"""Bringing, proving and mending model files, on real folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models

from tests.support.tiny_model import FILES, OTHER, Site
from tests.support.weight_trees import REVISIONS, digest, model, write_tree


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def flip(data: bytearray) -> None:
    data[70] ^= 1


def test_first_run_publishes_read_only_and_second_reads_nothing(site: Site) -> None:
    changed, (outcome,) = site.bring()
    assert (changed, outcome.state, outcome.bytes_copied) == (True, "published", 150_002)
    assert site.contents() == FILES
    for path in [site.published, *site.published.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o555 if path.is_dir() else 0o444)
    changed, (outcome,) = site.bring()
    assert (changed, outcome.state, outcome.bytes_hashed, outcome.bytes_copied) == (False, "present", 0, 0)
    assert list(site.store.incoming.iterdir()) == []


def test_second_run_needs_no_source(site: Site) -> None:
    site.bring()
    shutil.rmtree(site.source)
    assert site.bring()[0] is False


def test_check_mode_promises_and_touches_nothing(site: Site) -> None:
    changed, (outcome,) = site.bring(check=True)
    assert (changed, outcome.state) == (True, "published")
    assert not site.store.models.exists()
    assert not site.store.state.exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "config.json").unlink(), "config.json: is missing there"),
        (lambda root: os.truncate(root / "shards/1.dat", 9), "expected 100000 bytes, found 9"),
        (lambda root: (root / "config.json").write_bytes(b"[]"), "expected sha256"),
        (lambda root: shutil.rmtree(root.parent), "is the medium mounted?"),
    ],
)
def test_bad_source_is_refused_and_nothing_becomes_visible(
    site: Site, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(site.source / "tiny")
    with pytest.raises(Refusal) as caught:
        site.bring()
    assert said in str(caught.value)
    assert str(site.source) in str(caught.value)
    assert not site.published.exists()


def test_every_wrong_file_is_named_with_expected_and_found(site: Site) -> None:
    for name in ("1", "2"):
        path = site.source / f"tiny/shards/{name}.dat"
        path.write_bytes(b"w" * path.stat().st_size)
    with pytest.raises(Refusal) as caught:
        site.bring()
    for name in ("1", "2"):
        assert f"{site.source}/tiny/shards/{name}.dat: expected sha256" in str(caught.value)


@pytest.mark.parametrize("place", ["tiny/config.json", "tiny/shards", "tiny"])
def test_symbolic_links_in_the_source_are_refused(site: Site, place: str) -> None:
    link = site.source / place
    link.rename(site.source / "elsewhere")
    link.symlink_to(site.source / "elsewhere")
    with pytest.raises(Refusal, match="is a symbolic link"):
        site.bring()
    assert not site.published.exists()


def test_fifo_in_the_source_does_not_hang(site: Site) -> None:
    (site.source / "tiny/config.json").unlink()
    os.mkfifo(site.source / "tiny/config.json")
    with pytest.raises(Refusal, match="is not a regular file"):
        site.bring()


@pytest.mark.parametrize("place", ["tiny", f"tiny/{REVISIONS[0][:12]}", ".incoming"])
def test_symbolic_links_in_the_target_are_refused(site: Site, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = site.store.models / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal, match="is a symbolic link"):
        site.bring()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_flipped_bit_is_found_named_and_mended_by_that_file_only(site: Site) -> None:
    site.bring()
    site.tamper("shards/1.dat", flip)
    verdict = site.verdict()
    assert verdict["ok"] is False
    (fault,) = verdict["faults"]
    assert (fault["path"], fault["kind"]) == ("shards/1.dat", "digest")
    changed, (outcome,) = site.bring()
    assert (changed, outcome.state, outcome.fetched) == (True, "mended", ["shards/1.dat"])
    assert site.contents() == FILES
    assert site.verdict(deep=True)["ok"] is True
    assert site.bring()[0] is False


def test_bit_that_rots_under_the_stamp_is_found_by_a_deep_look(site: Site) -> None:
    site.bring()
    site.tamper("shards/1.dat", flip)
    # What a disk does behind the file system's back: the ledger still fits.
    ledger = Ledger.read(site.store.ledger_file)
    ledger.note((site.published / "shards/1.dat").stat(), digest(FILES["shards/1.dat"]))
    ledger.write()
    assert site.verdict()["ok"] is True
    assert [fault["path"] for fault in site.verdict(deep=True)["faults"]] == ["shards/1.dat"]


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda root: (root / "shards/2.dat").unlink(), "missing"),
        (lambda root: os.truncate(root / "shards/2.dat", 5), "size"),
        (lambda root: (root / "evil.dat").write_bytes(b"1"), "unlisted"),
        (lambda root: (root / "folder").mkdir(), "unlisted"),
        (lambda root: _replace_by_link(root / "shards/2.dat"), "kind"),
        (lambda root: _replace_by_folder(root / "config.json"), "kind"),
    ],
)
def test_whatever_is_done_to_a_published_model_is_seen_and_mended(
    site: Site, spoil: Callable[[Path], object], kind: str
) -> None:
    site.bring()
    for path in [site.published, site.published / "shards", *site.published.rglob("*.*")]:
        path.chmod(0o755)
    spoil(site.published)
    verdict = site.verdict()
    assert verdict["ok"] is False
    assert verdict["faults"][0]["kind"] == kind
    assert site.bring()[1][0].state == "mended"
    assert site.contents() == FILES
    assert site.verdict(deep=True)["ok"] is True
    assert site.bring()[0] is False


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("away"))
    (path.parent / "away").rename(path.parents[3] / "away")
    path.symlink_to(path.parents[3] / "away")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def test_modes_are_put_back(site: Site) -> None:
    site.bring()
    (site.published / "config.json").chmod(0o666)
    site.published.chmod(0o777)
    changed, (outcome,) = site.bring()
    assert (changed, outcome.state, outcome.bytes_copied) == (True, "mended", 0)
    assert (site.published / "config.json").stat().st_mode & 0o777 == 0o444
    assert site.published.stat().st_mode & 0o777 == 0o555
    assert site.bring()[0] is False


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {"7": [1]}, "chosen": 0}', '{"files": [], "chosen": 0}'])
def test_broken_state_only_costs_another_look(site: Site, text: str) -> None:
    site.bring()
    site.store.stamp(parse_models([model(FILES)])[0]).write_text(text)
    site.store.ledger_file.write_text(text)
    _, (outcome,) = site.bring()
    assert outcome.bytes_hashed == 150_002
    assert outcome.bytes_copied == 0
    assert site.bring()[1][0].bytes_hashed == 0


def test_lock_that_changed_under_the_same_revision_is_followed(site: Site) -> None:
    site.bring()
    write_tree(site.source / "tiny", OTHER)
    _, (outcome,) = site.bring([model(OTHER)])
    assert outcome.fetched == ["shards/2.dat"]
    assert site.contents() == OTHER


def test_previous_revision_stays_and_older_ones_go(site: Site) -> None:
    third = "c" * 40
    site.bring()
    write_tree(site.source / "tiny", OTHER)
    _, (outcome,) = site.bring([model(OTHER, revision=REVISIONS[1])])
    assert outcome.pruned == []
    assert site.contents() == FILES
    # Back to the first: it was chosen last, so it is the one that stays when a third comes.
    assert site.bring()[0] is False
    _, (outcome,) = site.bring([model(OTHER, revision=third)])
    assert [Path(path).name for path in outcome.pruned] == [REVISIONS[1][:12]]
    assert sorted(path.name for path in site.published.parent.iterdir()) == [REVISIONS[0][:12], third[:12]]
    changed, (outcome,) = site.bring([model(OTHER, revision=third)], keep_revisions=1, check=True)
    assert changed
    assert site.published.is_dir()
    site.bring([model(OTHER, revision=third)], keep_revisions=1)
    assert not site.published.exists()
