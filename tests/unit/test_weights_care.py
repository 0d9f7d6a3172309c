"""The care of a store: re-proof in the background, damage that nothing else shows, the inventory and its figures."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.artifacts import reading, reproof
from ansible.module_utils.artifacts.inventory import METRICS, metrics_text, read_inventory
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, planned, present, verified
from ansible.module_utils.artifacts.reading import hash_from_disk
from ansible.module_utils.artifacts.reproof import Report, reprove
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.artifacts.transfer import CHUNK
from ansible.module_utils.fetch.sources import Folder
from ansible.module_utils.run_lock import Busy

from tests.support.image_archives import payload
from tests.support.prometheus import until
from tests.support.weight_trees import REVISIONS, digest, model, write_tree

REPO = Path(__file__).parents[2]
SHARED = {"config.json": b'{"hidden_size": 8}', "shared.dat": b"s" * 100_000}
FIRST = {**SHARED, "own.dat": b"1" * 50_000}
SECOND = {**SHARED, "own.dat": b"2" * 60_000}
ONE, TWO = model(FIRST, name="one"), model(SECOND, name="two")
LATER = model(SECOND, name="one", revision=REVISIONS[1])


class Site:
    """A source with two models that share files, a store, releases, and the folder that node exporter reads."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.store = Store(root / "models", root / "state")
        self.releases = root / "opt"
        self.metrics = root / "textfile" / METRICS
        self.metrics.parent.mkdir()
        self.said: list[str] = []
        write_tree(self.source / "one", FIRST)
        write_tree(self.source / "two", SECOND)

    def bring(self, *wanted: dict[str, Any], **settings: Any) -> tuple[bool, list[Outcome]]:
        given = {"releases": self.releases, "metrics_file": self.metrics.with_name("redoubt_weights.prom"), **settings}
        models = parse_models(list(wanted))
        result: tuple[bool, list[Outcome]] = present(self.store, models, [Folder(self.source)], Settings(**given))
        return result

    def reprove(self) -> Report:
        report: Report = reprove(self.store, self.releases, self.metrics, self.said.append)
        return report

    def tree(self, name: str, revision: str = REVISIONS[0]) -> Path:
        return Path(self.store.models) / name / revision[:12]

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = read_inventory(self.store.state)
        return found

    def figures(self) -> dict[str, float]:
        rows = [line.rsplit(" ", 1) for line in self.metrics.read_text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    def rot(self, path: Path, when: float | None = None) -> None:
        """Flip a bit as a disk does: size, times and inode are what the ledger says, for it is told the new ctime."""
        ledger = Ledger.read(self.store.ledger_file)
        before = path.stat()
        proof = ledger.proof(before)
        assert proof is not None
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        ledger.note(path.stat(), proof.sha256, when or proof.when)
        ledger.write()

    def release(self, number: int, *trees: Path) -> None:
        """Write what the module `release` writes of a release's weights."""
        folder = self.releases / "releases" / str(number)
        folder.mkdir(parents=True)
        engines = [{"weights_path": str(tree)} for tree in trees]
        (folder / "manifest.json").write_text(json.dumps({"number": number, "engines": engines}))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_rot_that_moves_nothing_is_found_named_and_mended_by_the_next_run(site: Site) -> None:
    site.bring(ONE, TWO)
    damaged = site.tree("one") / "shared.dat"
    site.rot(damaged)
    assert site.bring(ONE, TWO)[0] is False  # nothing shows it but its bytes
    report = site.reprove()
    assert (report.files, report.damaged) == (4, 1)
    (said,) = site.said
    for name in ("one", "two"):
        assert f"{site.tree(name)}/shared.dat" in said
    assert f"expected sha256 {digest(FIRST['shared.dat'])}" in said
    assert site.figures()['redoubt_weights_damaged_files{model="one"}'] == 1
    assert site.inventory()["models"]["two"][REVISIONS[0][:12]]["damaged"] == ["shared.dat"]
    changed, (one, two) = site.bring(ONE, TWO)
    assert (changed, one.fetched, two.state) == (True, ["shared.dat"], "mended")
    assert damaged.read_bytes() == FIRST["shared.dat"]
    assert (site.tree("two") / "shared.dat").read_bytes() == FIRST["shared.dat"]
    assert site.figures()['redoubt_weights_damaged_files{model="one"}'] == 0  # without waiting for the timer
    assert site.reprove().damaged == 0
    assert site.bring(ONE, TWO)[0] is False


def test_deep_look_writes_down_what_it_found_so_that_the_next_run_mends_it(site: Site) -> None:
    site.bring(ONE)
    site.rot(site.tree("one") / "own.dat")
    (verdict,) = verified(site.store, parse_models([ONE]), Settings(check=True), True)
    assert site.bring(ONE)[0] is False  # check mode wrote nothing
    (verdict,) = verified(site.store, parse_models([ONE]), Settings(), True)
    assert [fault["path"] for fault in verdict["faults"]] == ["own.dat"]
    assert site.bring(ONE)[1][0].fetched == ["own.dat"]
    assert verified(site.store, parse_models([ONE]), Settings(), True)[0]["ok"]


def test_file_that_the_disk_cannot_read_is_damaged_and_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    blob = site.store.blobs.path(digest(FIRST["own.dat"]))
    broken = blob.stat().st_ino

    def unreadable(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Path, *rest: Any) -> Any:
            if Path(path).stat().st_ino == broken:
                raise OSError(errno.EIO, "Input/output error")
            return real(path, *rest)

        return read

    for place in ("reproof.hash_from_disk", "survey.hash_file", "staging.hash_file"):
        name = f"ansible.module_utils.artifacts.{place}"
        module, _, attribute = name.rpartition(".")
        monkeypatch.setattr(name, unreadable(getattr(sys.modules[module], attribute)))
    site.reprove()
    assert "found a read error (Input/output error)" in site.said[0]
    _, (outcome,) = site.bring(ONE)
    assert (outcome.state, outcome.fetched) == ("mended", ["own.dat"])
    assert blob.stat().st_ino != broken
    assert site.bring(ONE)[0] is False


def test_oldest_proof_is_read_first_and_a_killed_run_goes_on_where_it_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.bring(ONE, TWO)
    ledger = Ledger.read(site.store.ledger_file)
    wanted = sorted(site.store.blobs.every(), key=lambda item: item.name)
    for age, item in enumerate(wanted):
        ledger.note(item.stat(), item.name, 1000.0 + age)
    ledger.write()
    order: list[str] = []

    def until_killed(path: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        order.append(path.name)
        if len(order) == 3:
            raise KeyboardInterrupt
        answer: tuple[str, int] = hash_from_disk(path, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", until_killed)
    with pytest.raises(KeyboardInterrupt):
        site.reprove()
    names = [item.name for item in wanted]
    assert order == names[:3]
    assert site.inventory()["reproof"]["ended"] is None
    assert site.inventory()["oldest_proof"] == 1002
    site.reprove()
    assert order[3:] == [*names[2:], *names[:2]]
    assert site.inventory()["reproof"]["ended"]
    assert site.inventory()["oldest_proof"] > 1_700_000_000


def test_a_run_gets_the_store_while_files_are_read_and_the_result_waits_for_a_run(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.bring(ONE)
    site.rot(site.tree("one") / "own.dat", 1000.0)  # so that it is the first one
    reached, go = threading.Event(), threading.Event()

    def slow(path: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        reached.set()
        assert go.wait(60)
        answer: tuple[str, int] = hash_from_disk(path, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", slow)
    site.store = Store(site.store.models, site.store.state, patience=60)
    thread = threading.Thread(target=site.reprove)
    thread.start()
    assert reached.wait(60)
    # In the middle of a file: a run with no patience at all gets the lock, makes links, and says nothing is wrong.
    quick = Store(site.store.models, site.store.state, patience=0)
    present(quick, parse_models([ONE, TWO]), [Folder(site.source)], Settings())
    with quick.locked():
        go.set()
        before = quick.ledger_file.read_bytes()
        assert until(lambda: bool(site.said), 60)
        assert quick.ledger_file.read_bytes() == before
    thread.join(60)
    assert site.inventory()["reproof"]["damaged"] == 1
    assert site.bring(ONE, TWO)[1][0].fetched == ["own.dat"]
    # The links of the second model moved ctime while the shared files were read: they are proved all the same.
    assert site.bring(ONE, TWO)[1][1].bytes_hashed == 0


def test_file_that_got_a_link_while_it_was_read_counts_as_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    path = site.tree("one") / "shared.dat"
    ledger = Ledger.read(site.store.ledger_file)
    ledger.note(path.stat(), digest(FIRST["shared.dat"]), 1000.0)
    ledger.write()

    def linked(place: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        site.bring(ONE, TWO)  # moves its ctime
        answer: tuple[str, int] = hash_from_disk(place, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", linked)
    site.reprove()
    proof = Ledger.read(site.store.ledger_file).proof(path.stat())
    assert proof is not None
    assert proof.when > 1000


def test_file_that_was_replaced_while_it_was_read_is_left_as_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring(ONE)
    blob = site.store.blobs.path(digest(FIRST["own.dat"]))

    def replaced(path: Path, tick: Callable[[int], None]) -> tuple[str, int]:
        if path == blob:
            fresh = path.with_name("fresh")
            fresh.write_bytes(FIRST["own.dat"])
            fresh.replace(path)
            return "0" * 64, 50_000
        answer: tuple[str, int] = hash_from_disk(path, tick)
        return answer

    monkeypatch.setattr(reproof, "hash_from_disk", replaced)
    site.reprove()
    ledger = Ledger.read(site.store.ledger_file)
    assert (ledger.proof(blob.stat()), ledger.damage(blob.stat())) == (None, None)


def test_a_run_that_does_not_end_is_said(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    site.bring(ONE)
    monkeypatch.setattr(reproof, "PATIENCE", 0)
    words = ["--directory", str(site.store.models), "--state-dir", str(site.store.state)]
    with site.store.locked():
        assert reproof.main(words) == 1
        with pytest.raises(Busy):
            reprove(site.store, None, None, site.said.append)
    assert "is working on the models in" in capsys.readouterr().out


def test_program_says_damage_as_an_error_and_ends_red(site: Site, capsys: Any) -> None:
    site.bring(ONE)
    words = ["--directory", str(site.store.models), "--state-dir", str(site.store.state), "--releases", "/nowhere"]
    assert reproof.main([*words, "--figures", "--metrics", str(site.metrics)]) == 0
    assert "redoubt_weights_reproof_bytes" not in site.figures()  # nothing was read
    assert reproof.main(words) == 0
    assert capsys.readouterr().out == f"3 files, {150_000 + len(FIRST['config.json'])} bytes read again, 0 damaged\n"
    site.rot(site.tree("one") / "own.dat")
    assert reproof.main(words) == 1
    assert capsys.readouterr().out.startswith(f"<3>{site.tree('one')}/own.dat: expected sha256 ")


def installed_modules() -> list[str]:
    return list(yaml.safe_load((REPO / "roles/weights/vars/main.yml").read_text())["__weights_reproof_modules"])


def test_files_that_the_role_installs_are_all_that_the_program_needs(site: Site, tmp_path: Path) -> None:
    site.bring(ONE)
    library = tmp_path / "library"
    for module in installed_modules():
        target = library / "ansible/module_utils" / module
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((REPO / "module_utils" / module).read_text())
    for folder in ("ansible", "ansible/module_utils"):
        (library / folder / "__init__.py").touch()
    command = [sys.executable, "-S", "-B", "-m", "ansible.module_utils.artifacts.reproof"]
    words = ["--directory", str(site.store.models), "--state-dir", str(site.store.state)]
    done = subprocess.run(
        [*command, *words], env={"PYTHONPATH": str(library)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 files")


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK, CHUNK + 4096, 2 * CHUNK + 777])
@pytest.mark.parametrize("direct", ["real", "refused at once", "refused when reading"])
def test_hash_of_what_the_disk_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, direct: str) -> None:
    path = tmp_path / "file"
    data = payload(size, 3)
    path.write_bytes(data)
    if direct == "refused at once":
        real = reading.fcntl.fcntl

        def refuse(descriptor: int, command: int, *rest: int) -> Any:
            if rest and rest[0] & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(descriptor, command, *rest)

        monkeypatch.setattr(reading.fcntl, "fcntl", refuse)
    elif direct == "refused when reading":
        monkeypatch.setattr(reading, "CHUNK", CHUNK + 512)  # a length that the kernel refuses for O_DIRECT, or not
    read: list[int] = []
    assert hash_from_disk(path, read.append) == (digest(data), size)
    assert sum(read) == size


def cached_pages(path: Path) -> int:
    """Pages of a file that are in memory, by mincore."""
    pages = -(-path.stat().st_size // mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    vector = (ctypes.c_ubyte * pages)()
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as area:
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(area)), vector) == 0
    return sum(page & 1 for page in vector)


@pytest.mark.parametrize("direct", [True, False])
def test_reading_leaves_nothing_in_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(payload(2 * CHUNK + 777, 3))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if cached_pages(path):
        pytest.skip("this file system keeps its files in memory (tmpfs)")
    if not direct:
        monkeypatch.setattr(reading, "_set_direct", lambda descriptor, wanted: False)
    hash_from_disk(path, lambda _: None)
    assert cached_pages(path) <= 1  # the last part of a page, which O_DIRECT leaves to others


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
