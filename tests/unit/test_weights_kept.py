"""The store's inventory and its figures; what is kept and what is removed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.inventory import metrics_text
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, planned, present
from ansible.module_utils.artifacts.settling import Settings

from tests.support.care_site import LATER, ONE, SECOND, SHARED, TWO, Site
from tests.support.weight_trees import REVISIONS, write_tree


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_inventory_says_what_is_there_who_shares_it_and_who_refers_to_it(site: Site) -> None:
    site.release(7, site.tree("one"))
    _, (outcome, _) = site.bring(ONE, TWO)
    found = site.inventory()
    size = len(SHARED["config.json"])
    assert (found["schema"], found["files"], found["bytes"]) == (1, 4, size + 210_000)
    row = found["models"]["one"][REVISIONS[0][:12]]
    assert row["facts"]["config"] == {"hidden_size": 8}
    assert row["facts"] == outcome.facts
    assert {
        key: row[key] for key in ("path", "revision", "files", "bytes", "shared_bytes", "unproved", "releases")
    } == {
        "path": str(site.tree("one")),
        "revision": REVISIONS[0],
        "files": 3,
        "bytes": size + 150_000,
        "shared_bytes": size + 100_000,
        "unproved": 0,
        "releases": [7],
    }
    assert row["since"] > 1_700_000_000
    assert row["oldest_proof"] >= row["since"] - 60
    assert found["models"]["two"][REVISIONS[0][:12]]["releases"] == []
    before = (site.store.state / "inventory.json").stat()
    site.bring(ONE, TWO)
    assert (site.store.state / "inventory.json").stat().st_ino == before.st_ino  # nothing changed, nothing was written
    absent(site.store, [("two", None)], Settings(releases=site.releases))
    assert list(site.inventory()["models"]) == ["one"]


def test_proofs_of_an_earlier_version_are_as_old_as_their_bytes(site: Site) -> None:
    site.bring(ONE)
    document = json.loads(site.store.ledger_file.read_text())
    files = {inode: values[:4] for inode, values in document["files"].items()}
    site.store.ledger_file.write_text(json.dumps({"schema": 1, "files": files}))
    for path in site.tree("one").iterdir():
        os.utime(path, (1000, 1000))
    site.bring(ONE)
    assert site.inventory()["oldest_proof"] > 1_700_000_000  # touched, so read again
    document = json.loads(site.store.ledger_file.read_text())
    files = {inode: values[:4] for inode, values in document["files"].items()}
    site.store.ledger_file.write_text(json.dumps({"schema": 1, "files": files}))
    changed, (outcome,) = site.bring(ONE)
    assert (changed, outcome.bytes_hashed, site.inventory()["oldest_proof"]) == (False, 0, 1000)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "models": {}, "reproof": 3}'])
def test_broken_inventory_is_written_anew(site: Site, text: str) -> None:
    site.bring(ONE)
    (site.store.state / "inventory.json").write_text(text)
    assert site.bring(ONE)[0] is False
    assert site.inventory()["models"]["one"][REVISIONS[0][:12]]["files"] == 3


def test_metrics_name_only_what_is_known() -> None:
    document: dict[str, Any] = {"bytes": 5, "oldest_proof": None, "reproof": None, "models": {}}
    assert [line for line in metrics_text(document).splitlines() if line[0] != "#"] == [
        "redoubt_weights_stored_bytes 5"
    ]


def test_revision_that_a_release_refers_to_is_never_removed(site: Site) -> None:
    site.bring(ONE)
    site.release(1, site.tree("one"))
    write_tree(site.source / "one", SECOND)
    site.bring(LATER, keep_revisions=1)
    assert site.tree("one").is_dir()
    # Going back to it needs no source at all.
    changed, (outcome,) = present(site.store, parse_models([ONE]), [], Settings(releases=site.releases))
    assert (changed, outcome.state, outcome.fetched) == (False, "present", [])
    site.bring(LATER, keep_revisions=1)
    (site.releases / "releases/1/manifest.json").unlink()
    (site.releases / "releases/1").rmdir()
    _, (outcome,) = site.bring(LATER, keep_revisions=1)
    assert outcome.pruned == [str(site.tree("one"))]
    assert not site.tree("one").exists()


@pytest.mark.parametrize("manifest", ["", "{}", '{"engines": [{}]}', '{"engines": 3}'])
def test_release_that_cannot_be_read_keeps_everything_and_is_named(site: Site, manifest: str) -> None:
    site.bring(ONE)
    site.release(4)
    (site.releases / "releases/4/manifest.json").write_text(manifest)
    write_tree(site.source / "one", SECOND)
    _, (outcome,) = site.bring(LATER, keep_revisions=1)
    assert site.tree("one").is_dir()
    assert "release 4 has no readable manifest.json" in outcome.warnings[-1]


def test_unlisted_models_go_only_when_asked_and_unused(site: Site) -> None:
    site.bring(ONE, TWO)
    assert site.bring(ONE)[0] is False
    site.release(2, site.tree("two"))
    assert site.bring(ONE, keep_unlisted=False)[0] is False
    assert site.bring(keep_unlisted=False)[0] is False
    assert planned(site.store, [], Settings(keep_unlisted=False))[0] is False  # a list that is empty by mistake
    (site.releases / "releases/2").rename(site.releases / "releases/.failed")
    assert site.bring(ONE, keep_unlisted=False, check=True)[0] is True
    assert site.tree("two").is_dir()
    changed, (outcome,) = site.bring(ONE, keep_unlisted=False)
    assert (changed, outcome.pruned) == (True, [str(site.tree("two"))])
    assert not site.tree("two").exists()
    assert site.bring(ONE, keep_unlisted=False)[0] is False
