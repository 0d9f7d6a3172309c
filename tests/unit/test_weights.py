"""Bringing, proving and removing model files, on real folders and from a real web server on loopback."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, planned, present, verified
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.artifacts.survey import Stamp
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.run_lock import Busy

from tests.support.weight_trees import REVISIONS, digest, model, write_tree

FILES = {"config.json": b"{}", "shards/1.dat": b"x" * 100_000, "shards/2.dat": b"y" * 50_000}
OTHER = {**FILES, "shards/2.dat": b"z" * 50_000}


class Site:
    """A source folder, a models' directory, and the module's work on them."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.store = Store(root / "models", root / "state")
        self.address = f"file://{self.source}"
        write_tree(self.source / "tiny", FILES)

    def bring(
        self, wanted: list[dict[str, Any]] | None = None, address: str | None = None, **settings: Any
    ) -> tuple[bool, list[Outcome]]:
        models = parse_models([model(FILES)] if wanted is None else wanted)
        sources = make_sources([address or self.address], "weights_source", Network())
        how = How(Limits(retries=3, first_pause=0.01))
        result: tuple[bool, list[Outcome]] = present(self.store, models, sources, Settings(how=how, **settings))
        return result

    def verdict(self, deep: bool = False) -> dict[str, Any]:
        (found,) = verified(self.store, parse_models([model(FILES)]), Settings(), deep)
        answer: dict[str, Any] = found
        return answer

    @property
    def published(self) -> Path:
        return Path(self.store.models, "tiny", REVISIONS[0][:12])

    def contents(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.published)): path.read_bytes()
            for path in sorted(self.published.rglob("*"))
            if path.is_file()
        }

    def tamper(self, path: str, change: Callable[[bytearray], None]) -> None:
        """Change a published file in place and put its time back, as a broken disk or a careful intruder would."""
        target = self.published / path
        status = target.stat()
        data = bytearray(target.read_bytes())
        change(data)
        target.chmod(0o644)
        target.write_bytes(data)
        target.chmod(0o444)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


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


def test_too_small_a_disk_is_told_before_anything_is_copied(site: Site) -> None:
    disk = os.statvfs(site.source)
    reserve = disk.f_bavail * disk.f_frsize
    with pytest.raises(Refusal, match=r"needs \d+ more bytes: 150002 for files"):
        site.bring(reserve_bytes=reserve + (1 << 30))
    assert not site.published.exists()


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


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a file named in `short` is cut in the middle of its body."""

    short: str = ""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.short and self.path.endswith(self.short) else data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web(site: Site) -> Iterator[tuple[str, type[Handler]]]:
    kind = type("KindOfHandler", (Handler,), {})
    serve = functools.partial(kind, directory=str(site.source))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_from_a_web_server(site: Site, web: tuple[str, type[Handler]]) -> None:
    changed, (outcome,) = site.bring(address=web[0])
    assert (changed, outcome.bytes_copied) == (True, 150_002)
    assert site.contents() == FILES


def test_names_are_quoted_in_addresses(site: Site, web: tuple[str, type[Handler]]) -> None:
    odd = {"a b/c#1?x%20.json": b"odd"}
    write_tree(site.source / "tiny", odd)
    site.bring([model(odd)], address=web[0])
    assert site.contents() == odd


def test_web_server_that_lacks_cuts_or_changes_a_file(site: Site, web: tuple[str, type[Handler]]) -> None:
    address, handler = web
    handler.short = "2.dat"
    with pytest.raises(Refusal, match=r"2\.dat: expected 50000 bytes, found 25000"):
        site.bring(address=address)
    handler.short = ""
    write_tree(site.source / "tiny", {"shards/2.dat": b"w" * 50_000})
    with pytest.raises(Refusal, match=r"2\.dat: expected sha256"):
        site.bring(address=address)
    write_tree(site.source / "tiny", {"shards/2.dat": b"w" * 50_001})
    with pytest.raises(Refusal, match="expected 50000 bytes, the server offers 50001"):
        site.bring(address=address)
    (site.source / "tiny/shards/2.dat").unlink()
    with pytest.raises(Refusal, match="the server answers 404"):
        site.bring(address=address)
    assert not site.published.exists()
    write_tree(site.source / "tiny", FILES)
    _, (outcome,) = site.bring(address=address)
    assert outcome.bytes_reused == 100_002  # what came right in the failed runs


def test_web_server_that_is_not_there(site: Site) -> None:
    with pytest.raises(Refusal, match="Connection refused; is the address right"):
        site.bring(address="http://127.0.0.1:9")
