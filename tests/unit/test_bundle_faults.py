"""What can be wrong with a medium: each fault is named with its file, and nothing of it is ever published."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle import reading, writing
from ansible.module_utils.bundle.building import Wishes, build
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.document import Unreadable, manifest_bytes, parse_manifest
from ansible.module_utils.bundle.signing import sign
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.lock.document import digest

from tests.support.bundles import Site, depot_at, site
from tests.support.limits import small_disk
from tests.support.lock_documents import changed


@pytest.fixture
def built(tmp_path: Path) -> Site:
    """A site with its bundle in several volumes."""
    made = site(tmp_path)
    made.build(wishes=Wishes(piece=40_000))
    return made


def refused(made: Site, match: str, code: int = 1) -> None:
    """Verify and import both refuse, naming this; nothing is published, and no blob is bad."""
    try:
        report = verify(made.bundle, [made.public])
    except Refusal as refusal:
        assert (2 if isinstance(refusal, Unreadable) else 1) == code
        told = str(refusal)
    else:
        assert report.exit_code == code
        told = "\n".join(map(str, report.faults))
    assert match in told
    with pytest.raises((Refusal, OSError), match=match.replace(".", r"\.").replace("(", r"\(")):
        made.bring()
    assert made.published() is None
    assert made.far.verify(deep=True) == []


def pieces(made: Site) -> list[Path]:
    return sorted(path for path in made.bundle.glob("volume-*/*") if path.name != "volume.json")


@pytest.mark.parametrize("seed", range(50))
def test_a_flipped_bit_is_found_and_its_file_named(built: Site, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # the same draws each time
    files = [path for path in built.bundle.rglob("*") if path.is_file() and path.stat().st_size]
    kinds = ["manifest.json", ".minisig", "volume.json", ""]
    kind = kinds[seed % len(kinds)]
    path = chance.choice([file for file in files if file.name.endswith(kind) and (kind or file in pieces(built))])
    data = bytearray(path.read_bytes())
    # The first line of a signature is a comment that minisign itself calls untrusted.
    place = chance.randrange(data.index(b"\n") + 1 if kind == ".minisig" else 0, len(data))
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    if kind == ".minisig":
        refused(built, path.name)
    elif kind == "manifest.json":
        refused(built, "manifest.json")
    else:
        refused(built, str(path.relative_to(built.bundle)))


def test_a_truncated_and_a_missing_piece_are_named(built: Site) -> None:
    first, second = pieces(built)[:2]
    os.truncate(first, first.stat().st_size - 1)
    second.unlink()
    refused(built, f"volume-001/{first.name}")
    assert f"{second.name}: is not there" in "\n".join(map(str, verify(built.bundle, [built.public]).faults))


def test_a_good_copy_of_the_bad_file_alone_mends_it(built: Site) -> None:
    path = pieces(built)[3]
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    refused(built, path.name)
    path.write_bytes(good)
    assert built.bring().changed
    assert built.published() == built.lock


def test_a_volume_of_another_bundle_is_refused(built: Site, tmp_path: Path) -> None:
    other = changed(built.lock, lambda body: body["images"].pop("prometheus"))
    built.build(other, tmp_path / "other")
    shutil.rmtree(built.bundle / "volume-001")
    shutil.copytree(tmp_path / "other/volume-001", built.bundle / "volume-001")
    refused(built, "volume-001/volume.json: is not the list that this bundle's manifest names")


def test_a_missing_volume_is_named(built: Site) -> None:
    shutil.rmtree(built.bundle / "volume-001")
    refused(built, "volume-001")


def test_an_edited_manifest_is_refused_even_with_a_lock_that_fits(built: Site) -> None:
    path = built.bundle / "manifest.json"
    manifest = parse_manifest(path.read_bytes(), "x")
    lock = {**manifest.lock, "keys": []}
    lock["digest"] = digest(lock)
    path.write_bytes(manifest_bytes(lock, manifest.volumes))
    refused(built, "manifest.json")


def test_a_renamed_blob_and_an_extra_file_are_named(built: Site) -> None:
    path = pieces(built)[0]
    (built.bundle / "volume-001/notes.txt").write_text("hello")
    (built.bundle / "autorun.inf").write_text("run me")
    report = verify(built.bundle, [built.public])
    assert [(fault.kind, fault.path) for fault in report.faults] == [
        ("extra", "autorun.inf"),
        ("extra", "volume-001/notes.txt"),
    ]
    path.rename(path.with_name("f" * 64))
    refused(built, path.name)


@pytest.mark.parametrize("what", ["piece", "volume", "manifest", "list"])
def test_no_link_is_followed(built: Site, tmp_path: Path, what: str) -> None:
    names = {"volume": "volume-001", "manifest": "manifest.json", "list": "volume-001/volume.json"}
    path = built.bundle / names[what] if what in names else pieces(built)[0]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(built, str(path.relative_to(built.bundle)))


def test_a_pipe_in_place_of_a_file_does_not_hang(built: Site) -> None:
    path = pieces(built)[0]
    path.unlink()
    os.mkfifo(path)
    refused(built, "is not a regular file")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b", "volume-001/../../x", "..", "x" * 64])
def test_path_tricks_in_signed_lists_are_refused(built: Site, name: str) -> None:
    """Even who holds the key cannot name a file outside: its list is refused."""
    forge(built, lambda row: row.update(file=name))
    refused(built, "is not in a file that is named after its SHA-256")


@pytest.mark.parametrize("change", [{"offset": -1}, {"offset": 10**9}, {"size": "1"}, {"blob": "0" * 64}, {"more": 1}])
def test_lists_that_make_no_sense_are_refused(built: Site, change: dict[str, Any]) -> None:
    forge(built, lambda row: row.update(change))
    refused(built, "volume-001/volume.json")


def forge(made: Site, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the first row of a volume's list, and sign a manifest that fits."""
    path = made.bundle / "volume-001/volume.json"
    document = json.loads(path.read_bytes())
    change(document["pieces"][0])
    data = json.dumps(document).encode()
    path.write_bytes(data)
    manifest = parse_manifest((made.bundle / "manifest.json").read_bytes(), "x")
    row = dataclasses.replace(manifest.volumes[0], sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    signed = manifest_bytes(manifest.lock, [row, *manifest.volumes[1:]])
    (made.bundle / "manifest.json").write_bytes(signed)
    sign(made.bundle, parse_manifest(signed, "x"), made.secret)


def test_an_error_of_the_medium_names_the_file_and_the_next_run_goes_on(
    built: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = pieces(built)[2]
    real = reading.fill

    def unplugged(stream: Any, buffer: memoryview, path: Path) -> int:
        if path == bad:
            raise reading.BadFile("unreadable", path, os.strerror(errno.EIO))
        return int(real(stream, buffer, path))

    monkeypatch.setattr("ansible.module_utils.bundle.taking.fill", unplugged)
    with pytest.raises(Refusal, match=f"{bad.name}: Input/output error"):
        built.bring()
    assert built.published() is None
    monkeypatch.undo()
    assert built.bring().brought < sum(map(len, built.contents.values()))
    assert built.published() == built.lock


def test_a_full_disk_is_told_before_the_first_byte(built: Site, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 100_000) as disk:
        built.far = Depot(disk / "depot", patience=1)
        with pytest.raises(Refusal, match=r"bytes are to come, and .* are free"):
            built.bring()
        assert built.published() is None


def test_a_disk_that_fills_up_on_the_way_publishes_nothing(
    built: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.module_utils.bundle.importing._has_room", lambda *_: None)
    with small_disk(tmp_path / "small", 200_000) as disk:
        built.far = Depot(disk / "depot", patience=1)
        with pytest.raises((Refusal, OSError), match=r"disk is full|No space"):
            built.bring()
        assert built.far.records.sites() == []


def test_a_disk_that_fills_up_while_building_leaves_no_manifest(built: Site, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 100_000) as disk:
        with pytest.raises(Refusal, match="are free; take a larger one"):
            build(built.near, built.lock, disk / "out")
        assert not (disk / "out/manifest.json").exists()


def test_a_damaged_depot_is_not_built_from(built: Site, tmp_path: Path) -> None:
    path = next(path for path in built.near.blobs.root.glob("sha256/*/*") if path.stat().st_size > 10_000)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refusal, match=path.name):
        build(built.near, built.lock, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


def test_two_imports_at_once_wait_for_each_other(built: Site) -> None:
    results: list[Any] = []

    def run() -> None:
        results.append(built.bring())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.site for result in results] == ["bank-north"] * 3
    assert sum(result.brought > 0 for result in results) == 1
    assert built.far.verify(deep=True) == []


def test_a_medium_without_links_and_with_short_files_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FAT: no link, no mode, no file of 4 GiB; here the limit is 40,000 bytes and the rest is refused."""
    made = site(tmp_path)

    def never(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "not on this file system")

    for name in ("link", "symlink", "chown", "fchmod"):
        monkeypatch.setattr(writing.os, name, never)
    written = writing.write_all

    def limited(descriptor: int, data: memoryview) -> None:
        written(descriptor, data)
        if os.fstat(descriptor).st_size > 40_000:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(writing, "write_all", limited)
    with pytest.raises(OSError, match="File too large"):
        made.build()
    made.build(wishes=Wishes(piece=40_000))
    monkeypatch.undo()
    assert max(path.stat().st_size for path in pieces(made)) <= 40_000
    assert all(len(path.name) == 64 and path.name.isalnum() for path in pieces(made))
    assert made.bring().changed
    assert made.far.verify(deep=True) == []


def test_a_file_longer_than_fat_takes_is_refused(built: Site, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot stand on every medium"):
        build(built.near, built.lock, tmp_path / "out", Wishes(piece=2**32))


def test_the_fixture_itself_is_good(built: Site, tmp_path: Path) -> None:
    assert verify(built.bundle, [built.public]).faults == []
    assert built.bring().changed
    assert depot_at(tmp_path / "third").records.sites() == []
