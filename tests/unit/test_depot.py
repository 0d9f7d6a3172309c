"""A depot: bytes come in proved, a lock is published whole or not at all, what nobody needs goes."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.layout import MANIFEST_SUFFIXES, layout, normalized
from ansible.module_utils.depot.signing import Signer
from ansible.module_utils.lock.parts import parts
from ansible.module_utils.run_lock import Busy

from tests.lint.roles import REPOSITORY, load
from tests.support.depots import PLATFORM, LockMaker, small


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    made = Depot(tmp_path / "depot", Signer(tmp_path / "no-key"), patience=0)
    made.prepare()
    return made


def fill(depot: Depot, made: LockMaker) -> dict[str, Any]:
    """Bring all bytes of a lock; return the lock."""
    lock = made.lock()
    for sha256, data in made.contents.items():
        depot.add_blob(io.BytesIO(data), sha256, len(data))
    return lock


def files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder))


def test_threads_may_make_the_same_folder_at_once(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looked, and found none, before either made it."""
    rows = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(600)]
    first = next(row for row in rows if sum(other[:2] == row[:2] for other in rows) > 1)
    pair = [number for number, row in enumerate(rows) if row[:2] == first[:2]][:2]
    folder = depot.blobs.path(first).parent
    known, lies = Path.is_dir, [folder, folder]

    def is_dir(path: Path) -> bool:
        if path in lies:
            lies.remove(path)
            return False
        return known(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    for number in pair:
        data = str(number).encode()
        depot.add_blob(io.BytesIO(data), rows[number], len(data))
    assert {path.name for path in folder.iterdir()} == {rows[number] for number in pair}


def test_a_view_holds_what_the_lock_lists_and_links_to_the_store(depot: Depot) -> None:
    lock = fill(depot, small())
    assert depot.publish(lock) and not depot.publish(lock)
    view = depot.root / "sites/bank-north"
    for part in parts(lock):
        assert os.stat(view / part.path).st_ino == os.stat(depot.blobs.path(part.sha256)).st_ino
    extra = set(files(view)) - {part.path for part in parts(lock)}
    manifest = next(row["sha256"] for row in lock["images"]["tiny"]["blobs"] if row["role"] == "manifests")
    model = [row["sha256"] for row in lock["models"]["smol"]["files"]]
    made = {path for path in extra if path.startswith(f"packages/{PLATFORM}/")}
    assert extra - made == {
        f"registry/redoubt/tiny/manifests/{manifest}.oci-manifest",
        *(f"blobs/sha256/{sha256[:2]}/{sha256}" for sha256 in model),
        "python/simple/index.html",
        "python/simple/rich-text/index.html",
    }
    assert {path.split("/")[2] for path in made} == {"Release", "by-hash"}
    assert depot.verify(deep=True) == []


def test_the_index_of_wheels_names_each_with_its_hash(depot: Depot) -> None:
    lock = fill(depot, small())
    depot.publish(lock)
    page = (depot.root / "sites/bank-north/python/simple/rich-text/index.html").read_text()
    row = lock["python"]["files"][0]
    assert f'<a href="../../{row["file"]}#sha256={row["sha256"]}">{row["file"]}</a>' in page
    assert (depot.root / "sites/bank-north/python/simple/rich-text" / "../.." / row["file"]).is_file()
    assert normalized("Foo.Bar__baz") == "foo-bar-baz"


def test_missing_bytes_refuse_a_lock_and_are_named(depot: Depot) -> None:
    made = small()
    lock = made.lock()
    lost = lock["models"]["smol"]["files"][1]
    for sha256, data in made.contents.items():
        if sha256 != lost["sha256"]:
            depot.add_blob(io.BytesIO(data), sha256, len(data))
    assert [part.path for part in depot.missing(parts(lock))] == [f"models/smol/{'a' * 12}/deep/model.safetensors"]
    with pytest.raises(Refusal, match=r"lacks 1 file of the lock of site bank-north.*\n.*model smol.*safetensors"):
        depot.publish(lock)
    assert not (depot.root / "sites/bank-north").exists() and depot.lock("bank-north") is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b"other bytes", "expected sha256 .*, found"),
        (b"short", "expected 11 bytes, found 5"),
        (b"x" * 12, "found more"),
    ],
)
def test_other_bytes_never_get_in(depot: Depot, given: bytes, text: str, tmp_path: Path) -> None:
    made = LockMaker()
    figures = made.keep(b"right bytes")
    source = tmp_path / "source"
    source.write_bytes(given)
    for stream in (source, io.BytesIO(given)):
        with pytest.raises(Refusal, match=text):
            depot.add_blob(stream, figures["sha256"], figures["size"])
    assert list(depot.blobs.every()) == [] and list(depot.blobs.partial.iterdir()) == []


def test_many_may_add_the_same_bytes_at_once(depot: Depot) -> None:
    made = LockMaker()
    figures = made.keep(os.urandom(3_000_000))
    data = made.contents[figures["sha256"]]
    threads = [
        threading.Thread(target=depot.add_blob, args=(io.BytesIO(data), figures["sha256"], len(data))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blob = depot.blobs.path(figures["sha256"])
    assert blob.read_bytes() == data and stat.S_IMODE(blob.stat().st_mode) == 0o444
    assert not depot.add_blob(io.BytesIO(b"not even read"), figures["sha256"], len(data))
    assert list(depot.blobs.partial.iterdir()) == []


def test_two_sites_share_bytes_and_one_goes_without_harm(depot: Depot) -> None:
    north, south = fill(depot, small("north")), fill(depot, small("south"))
    depot.publish(north)
    depot.publish(south)
    model = f"models/smol/{'a' * 12}/config.json"
    inodes = {os.stat(depot.root / f"sites/{site}" / model).st_ino for site in ("north", "south")}
    assert len(inodes) == 1
    assert depot.withdraw("north") and not depot.withdraw("north")
    assert depot.collect_garbage() == 0
    assert depot.verify(deep=True) == [] and depot.records.sites() == ["south"]
    assert not (depot.root / "sites/north").is_symlink()
    depot.withdraw("south")
    assert depot.collect_garbage() == sum(depot_sizes(small()))
    assert depot.inventory() == {"schema": 1, "sites": {}, "blobs": {}}


def depot_sizes(made: LockMaker) -> list[int]:
    made.lock()
    return [len(data) for data in made.contents.values()]


def test_collecting_keeps_the_former_lock_and_the_one_on_its_way(depot: Depot) -> None:
    versions = []
    for serial in (1, 2, 3, 4):
        made = small(serial=serial)
        made.model("big", "c" * 40, {"weights": b"%d" % serial * 1000})
        versions.append(made)
    first, second, third = (fill(depot, made) for made in versions[:3])
    for lock in (first, second, third):
        depot.publish(lock)
    coming = versions[3].lock()
    depot.expect(coming)
    arrived = coming["models"]["big"]["files"][0]
    depot.add_blob(io.BytesIO(versions[3].contents[arrived["sha256"]]), arrived["sha256"], arrived["size"])
    gone = first["models"]["big"]["files"][0]
    assert depot.collect_garbage(dry=True) == gone["size"] and depot.has(gone["sha256"], gone["size"])
    assert depot.collect_garbage() == gone["size"] and not depot.has(gone["sha256"], gone["size"])
    assert depot.has(arrived["sha256"], arrived["size"])
    assert sorted(os.listdir(depot.root / "views/bank-north")) == sorted(
        lock["digest"].partition(":")[2][:12] for lock in (second, third)
    )
    assert depot.records.previous("bank-north") == second
    # The way back needs no medium; afterwards the other one is the former.
    assert depot.publish(second) and depot.verify(deep=True) == []
    assert depot.records.previous("bank-north") == third and depot.records.highest_serial("bank-north") == 3


def test_a_lock_on_its_way_is_no_longer_expected_once_it_is_in_force(depot: Depot) -> None:
    lock = fill(depot, small())
    depot.expect(lock)
    depot.publish(lock)
    assert depot.records.coming() == {}


def test_a_newer_release_never_has_an_older_date(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """APT keeps what it has over an older date, so the way back needs a new one."""
    clock = iter(range(1_800_000_000, 1_900_000_000, 1000))
    monkeypatch.setattr("ansible.module_utils.depot.view.time.time", lambda: next(clock))
    second = small(serial=2)
    second.package("jq", "1.7", b"jq")
    dates = []
    locks = [fill(depot, small()), fill(depot, second)]
    for lock in (locks[0], locks[1], locks[0]):
        depot.publish(lock)
        text = (depot.root / f"sites/bank-north/packages/{PLATFORM}/Release").read_text()
        dates.append(next(line for line in text.splitlines() if line.startswith("Date:")))
    assert len(set(dates)) == 3, dates


def test_the_former_list_of_packages_stays_under_its_hash(depot: Depot) -> None:
    first, made = fill(depot, small()), small(serial=2)
    made.package("jq", "1.7", b"jq")
    second = fill(depot, made)
    depot.publish(first)
    depot.publish(second)
    folder = depot.root / f"sites/bank-north/packages/{PLATFORM}/by-hash/SHA256"
    indexes = {lock["platforms"][PLATFORM]["indexes"][0]["sha256"] for lock in (first, second)}
    assert {path.name for path in folder.iterdir()} == indexes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda lock: lock.update(site="../up"), "site is '../up'"),
        (lambda lock: lock.update(site="Bank"), "site is 'Bank'"),
        (lambda lock: lock.update(serial=0), "serial is 0"),
        (lambda lock: lock.update(digest="sha256:12"), "digest is 'sha256:12'"),
        (lambda lock: lock.update(schema=2), "schema is 2"),
        (lambda lock: lock.pop("models"), "lacks 'models'"),
        (lambda lock: lock["models"]["smol"]["files"][0].update(path="../../x"), "leaves its folder"),
        (lambda lock: lock["platforms"][PLATFORM]["packages"][0].update(path="Packages"), "two contents"),
        (lambda lock: lock["platforms"][PLATFORM]["packages"][0].update(path="InRelease"), "the depot makes itself"),
        (lambda lock: lock["platforms"][PLATFORM]["indexes"][0].update(path="by-hash/SHA256/1"), "makes itself"),
        (lambda lock: lock["models"]["smol"]["files"][0].update(path="deep"), "a file and as a folder"),
        (lambda lock: lock["python"]["files"][0].update(file="simple/index.html"), "the depot makes itself"),
        (lambda lock: lock["python"]["files"][0].update(sha256="A" * 64), "not 64 lower-case hex digits"),
        (lambda lock: lock["project"].update(size=-1), "size is -1"),
        (lambda lock: lock["images"]["tiny"].update(name="Tiny:1"), "name is 'Tiny:1'"),
        (
            lambda lock: lock["images"]["tiny"]["blobs"][0].update(media_type="text/plain"),
            "'text/plain' cannot be served",
        ),
    ],
)
def test_a_lock_that_cannot_be_used_is_refused_with_the_reason(depot: Depot, change: Any, text: str) -> None:
    lock = small().lock()
    change(lock)
    with pytest.raises(Refusal) as refusal:
        layout(lock)
    assert text in str(refusal.value)
    with pytest.raises(Refusal):
        depot.publish(lock)
    assert not list((depot.root / "views").iterdir())


def test_only_one_run_publishes(depot: Depot) -> None:
    lock = fill(depot, small())
    with depot.locked(), pytest.raises(Busy):
        depot.publish(lock)


def test_the_inventory_is_what_is_there(depot: Depot) -> None:
    lock = fill(depot, small())
    depot.publish(lock)
    document = depot.inventory()
    assert document["sites"] == {"bank-north": {"serial": 1, "digest": lock["digest"]}}
    assert document["blobs"] == dict(sorted((part.sha256, part.size) for part in parts(lock)))


def test_nginx_knows_every_kind_of_manifest() -> None:
    assert load(REPOSITORY / "roles/depot/vars/main.yml")["__depot_manifest_types"] == MANIFEST_SUFFIXES
