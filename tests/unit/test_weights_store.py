"""The store of blobs: bytes once, trees as links, what stays proved, and trees that the first version published."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, present, verified
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.web import Web

from tests.support.fault_server import serving
from tests.support.image_archives import payload
from tests.support.two_models import FIRST, ONE, SECOND, SHARED, TWO, Site
from tests.support.weight_trees import REVISIONS, digest, model, write_tree

PIECE = 64 << 10
BIG = payload(10 * PIECE + 777, 8)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_two_models_share_the_bytes_of_a_file_and_stay_proved(site: Site) -> None:
    _, (one, two) = site.bring(ONE, TWO)
    assert (one.bytes_copied, two.bytes_copied, two.bytes_reused) == (150_002, 60_000, 100_002)
    assert two.fetched == ["own.dat"]
    assert site.blobs() == {
        digest(b"{}"): 3,
        digest(b"s" * 100_000): 3,
        digest(b"1" * 50_000): 2,
        digest(b"2" * 60_000): 2,
    }
    assert (site.tree("one") / "config.json").stat().st_ino == (site.tree("two") / "config.json").stat().st_ino
    # Links that were added moved the inodes' ctime; nothing is hashed again for that.
    changed, outcomes = site.bring(ONE, TWO)
    assert (changed, [item.bytes_hashed for item in outcomes]) == (False, [0, 0])


def test_removing_a_model_keeps_what_the_other_one_needs_and_frees_the_rest(site: Site) -> None:
    site.bring(ONE, TWO)
    absent(site.store, [("one", None)], Settings())
    assert site.blobs() == {digest(b"{}"): 2, digest(b"s" * 100_000): 2, digest(b"2" * 60_000): 2}
    changed, (outcome,) = site.bring(TWO)
    assert (changed, outcome.bytes_hashed) == (False, 0)
    absent(site.store, [("two", None)], Settings())
    assert site.blobs() == {}


def test_pruned_revision_frees_its_blobs_and_its_successor_stays_proved(site: Site) -> None:
    site.bring(ONE)
    write_tree(site.source / "one", SECOND)
    later = model(SECOND, name="one", revision=REVISIONS[1])
    _, (outcome,) = site.bring(later, keep_revisions=1)
    assert outcome.bytes_copied == 60_000
    assert digest(b"1" * 50_000) not in site.blobs()
    changed, (outcome,) = site.bring(later, keep_revisions=1)
    assert (changed, outcome.bytes_hashed) == (False, 0)


def test_damage_to_shared_bytes_is_mended_in_both_models_by_one_copy(site: Site) -> None:
    site.bring(ONE, TWO)
    target = site.tree("one") / "shared.dat"
    target.chmod(0o644)
    with target.open("r+b") as stream:
        stream.write(b"X")
    _, (one, two) = site.bring(ONE, TWO)
    assert (one.state, one.bytes_copied, two.state, two.bytes_copied) == ("mended", 100_000, "mended", 0)
    for name in ("one", "two"):
        assert (site.tree(name) / "shared.dat").read_bytes() == SHARED["shared.dat"]
    assert site.bring(ONE, TWO)[0] is False


def test_file_put_in_place_of_a_link_is_seen_by_its_inode(site: Site) -> None:
    site.bring(ONE)
    target = site.tree("one") / "own.dat"
    status = target.stat()
    target.unlink()
    target.write_bytes(b"9" * 50_000)
    target.chmod(0o444)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, (outcome,) = site.bring(ONE)
    assert (outcome.state, outcome.bytes_copied, outcome.bytes_reused) == ("mended", 0, 50_000)
    assert target.read_bytes() == FIRST["own.dat"]


def as_first_version(site: Site, name: str, document: dict[str, Any], files: dict[str, bytes]) -> None:
    """Publish a tree as the first version of the module did: plain files, and a stamp per revision."""
    write_tree(site.tree(name), files)
    stamps = {}
    for file in document["files"]:
        path = site.tree(name) / file["path"]
        path.chmod(0o444)
        found = path.stat()
        stamps[file["path"]] = [
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
            file["sha256"],
        ]
    site.tree(name).chmod(0o555)
    write_tree(
        site.store.state / name,
        {f"{REVISIONS[0][:12]}.json": json.dumps({"schema": 1, "chosen": 5.0, "files": stamps}).encode()},
    )


def test_trees_of_the_first_version_are_taken_over_without_reading_them(site: Site) -> None:
    as_first_version(site, "one", ONE, FIRST)
    as_first_version(site, "two", TWO, SECOND)
    verdicts = verified(site.store, parse_models([ONE, TWO]), Settings(), False)
    assert [(item["ok"], item["bytes_hashed"]) for item in verdicts] == [(True, 0), (True, 0)]
    assert site.bring(ONE, TWO, check=True)[0] is True
    assert not site.store.blobs.root.exists()
    changed, outcomes = site.bring(ONE, TWO)
    assert changed
    assert [(item.state, item.bytes_hashed, item.bytes_copied) for item in outcomes] == [("adopted", 0, 0)] * 2
    assert site.blobs()[digest(SHARED["shared.dat"])] == 3  # two copies became one
    changed, outcomes = site.bring(ONE, TWO)
    assert (changed, [item.bytes_hashed for item in outcomes]) == (False, [0, 0])
    assert site.store.chosen("one", REVISIONS[0][:12]) == 5.0


def test_changed_file_of_a_first_versions_tree_is_not_believed(site: Site) -> None:
    as_first_version(site, "one", ONE, FIRST)
    target = site.tree("one") / "own.dat"
    status = target.stat()
    target.chmod(0o644)
    target.write_bytes(b"9" * 50_000)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, (outcome,) = site.bring(ONE)
    assert (outcome.state, outcome.fetched) == ("mended", ["own.dat"])
    assert target.read_bytes() == FIRST["own.dat"]


def test_blob_without_proof_is_hashed_before_a_tree_gets_it(site: Site) -> None:
    site.bring(ONE)
    absent_blob = site.store.blobs.path(digest(b"2" * 60_000))
    absent_blob.parent.mkdir(exist_ok=True)
    absent_blob.write_bytes(b"8" * 60_000)
    _, (_, two) = site.bring(ONE, TWO)
    assert two.bytes_copied == 60_000
    assert (site.tree("two") / "own.dat").read_bytes() == SECOND["own.dat"]


def test_more_names_than_an_inode_may_have_become_copies(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def refuse(source: Path, target: Path) -> None:
        if Path(source).name == digest(FIRST["own.dat"]):
            raise OSError(errno.EMLINK, "Too many links")
        real(source, target)

    monkeypatch.setattr(os, "link", refuse)
    site.bring(ONE)
    assert (site.tree("one") / "own.dat").read_bytes() == FIRST["own.dat"]
    assert site.bring(ONE)[0] is False
    changed, (outcome,) = site.bring(ONE)
    assert (changed, outcome.bytes_hashed) == (False, 0)


def test_touched_file_is_hashed_once_and_then_believed_again(site: Site) -> None:
    site.bring(ONE)
    os.utime(site.tree("one") / "own.dat")
    changed, (outcome,) = site.bring(ONE)
    assert (changed, outcome.bytes_hashed, outcome.bytes_copied) == (False, 50_000, 0)
    assert site.bring(ONE)[1][0].bytes_hashed == 0


def test_ledger_forgets_what_is_gone(site: Site) -> None:
    site.bring(ONE, TWO)
    absent(site.store, [("one", None), ("two", None)], Settings())
    ledger = Ledger.read(site.store.ledger_file)
    assert json.loads(site.store.ledger_file.read_text())["files"] == {}
    assert ledger.digest(site.source.stat()) is None


def test_clock_that_was_set_back_leaves_the_chosen_revision_chosen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    write_tree(site.source / "one", SECOND)
    later = model(SECOND, name="one", revision=REVISIONS[1])
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    site.bring(later)
    assert site.store.revisions("one") == [REVISIONS[1][:12], REVISIONS[0][:12]]
    stamp = (site.store.state / "one" / f"{REVISIONS[1][:12]}.json").read_bytes()
    assert site.bring(later)[0] is False
    assert (site.store.state / "one" / f"{REVISIONS[1][:12]}.json").read_bytes() == stamp


@pytest.mark.parametrize("count", [4000, pytest.param(40_000, marks=pytest.mark.slow)])
def test_thousands_of_small_files(tmp_path: Path, count: int) -> None:
    distinct = count // 4
    files = {f"part{number % 50}/{number}": b"%d" % (number % distinct) for number in range(count)}
    with serving({f"/tiny/{path}": data for path, data in files.items()}) as server:
        store = Store(tmp_path / "models", tmp_path / "state")
        parsed = parse_models([model(files)])
        _, (outcome,) = present(store, parsed, [Web(server.base)], Settings())
        assert outcome.state == "published"
        assert len(outcome.fetched) == len(server.asked) == distinct  # the same bytes come once, whatever their names
        assert server.connections <= 8
    for path, data in files.items():
        assert (store.published(parsed[0]) / path).read_bytes() == data
    assert present(store, parsed, [], Settings())[0] is False


def test_what_a_killed_run_left_of_a_model_that_nobody_wants_any_more_goes_away(site: Site) -> None:
    site.bring(ONE)
    left = site.store.blobs.partial / digest(b"of another model")
    left.write_bytes(b"half")
    left.with_name(f"{left.name}.journal").write_text("x")
    unused = site.store.blobs.path(digest(b"whole, but in no tree"))
    unused.parent.mkdir(exist_ok=True)
    unused.write_bytes(b"whole, but in no tree")
    site.bring(ONE)
    assert list(site.store.blobs.partial.iterdir()) == []
    assert not unused.exists()


def test_failed_run_keeps_what_arrived_for_the_next_one(site: Site) -> None:
    (site.source / "two/own.dat").unlink()
    with serving({"/two/config.json": SHARED["config.json"], "/two/shared.dat": SHARED["shared.dat"]}) as server:
        how = How(Limits(retries=1, first_pause=0.01))
        with pytest.raises(Refusal, match=r"two/own\.dat: the server answers 404"):
            present(site.store, parse_models([TWO]), [Web(server.base)], Settings(how=how))
        assert not site.tree("two").exists()
        server.files["/two/own.dat"] = SECOND["own.dat"]
        before = server.total()
        _, (outcome,) = present(site.store, parse_models([TWO]), [Web(server.base)], Settings(how=how))
        assert (outcome.fetched, outcome.bytes_hashed) == (["own.dat"], 0)
        assert server.total() - before == len(SECOND["own.dat"])


def test_file_system_without_hard_links_only_costs_space(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    as_first_version(site, "one", ONE, FIRST)

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    changed, (one, two) = site.bring(ONE, TWO)
    assert (one.state, two.state) == ("present", "published")
    assert (site.tree("two") / "own.dat").read_bytes() == SECOND["own.dat"]
    site.bring(ONE, TWO)
    changed, outcomes = site.bring(ONE, TWO)
    assert (changed, [item.bytes_hashed for item in outcomes]) == (False, [0, 0])
