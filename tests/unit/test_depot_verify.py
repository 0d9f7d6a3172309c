"""Proving a depot: each kind of damage is seeded, and has to be named with its file."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer

from tests.support import programs
from tests.support.depots import LockMaker, small

VIEW = "sites/bank-north"
REPOSITORY = f"{VIEW}/packages/debian-13-amd64"


@pytest.fixture(scope="module")
def key() -> Iterator[Path]:
    """A key; below a short path, since GnuPG's socket has one."""
    programs.client("gpg", "gpg")
    with TemporaryDirectory(prefix="depot-", dir="/tmp") as folder:
        home = Path(folder, "gnupg")
        assert Signer(home).create("test") and not Signer(home).create("test")
        yield home


@pytest.fixture
def depot(tmp_path: Path, key: Path) -> Depot:
    made, contents = Depot(tmp_path / "depot", Signer(key), patience=0), small()
    made.prepare()
    lock = contents.lock()
    fill(made, contents)
    made.publish(lock)
    assert made.verify(deep=True) == []
    return made


def fill(depot: Depot, made: LockMaker) -> None:
    for sha256, data in made.contents.items():
        depot.add_blob(io.BytesIO(data), sha256, len(data))


def blob(depot: Depot) -> Path:
    """The largest file of the model."""
    lock = depot.lock("bank-north") or {}
    path: Path = depot.blobs.path(lock["models"]["smol"]["files"][1]["sha256"])
    return path


def flip(path: Path, at: int = 100) -> None:
    os.chmod(path, 0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.chmod(path, 0o444)


def rewrite(path: Path, text: str) -> None:
    """Put another file in the place of one, as an editor does."""
    path.unlink()
    path.write_text(text)


def resign(depot: Depot, key: Path) -> None:
    with TemporaryDirectory(prefix="depot-", dir="/tmp") as folder:
        other = Signer(Path(folder, "gnupg"))
        other.create("other")
        folder_of_packages = depot.root / REPOSITORY
        rewrite(
            folder_of_packages / "InRelease",
            other.clear_signed((folder_of_packages / "Release").read_bytes()).decode(),
        )


Damage = Callable[[Depot, Path], Any]
SHALLOW: dict[str, tuple[Damage, str, str]] = {
    "blob gone": (lambda depot, _: blob(depot).unlink(), "missing", "blobs/sha256/"),
    "blob cut": (lambda depot, _: rewrite(blob(depot), "short"), "damaged", "blobs/sha256/"),
    "blob with another name": (lambda depot, _: blob(depot).rename(blob(depot).with_name("x")), "foreign", "/x"),
    "file of the view replaced": (
        lambda depot, _: rewrite(depot.root / VIEW / "python/rich_text-13.0-py3-none-any.whl", "w" * 500),
        "damaged",
        "python/rich_text",
    ),
    "file of the view gone": (
        lambda depot, _: (depot.root / REPOSITORY / "pool/c/curl_8.14.1-2_amd64.deb").unlink(),
        "damaged",
        "curl_8.14.1-2",
    ),
    "file of the view a link": (
        lambda depot, _: (
            (depot.root / REPOSITORY / "Packages").unlink(),
            (depot.root / REPOSITORY / "Packages").symlink_to("/etc/passwd"),
        ),
        "damaged",
        "Packages",
    ),
    "extra file": (
        lambda depot, _: (depot.root / REPOSITORY / "pool/c/evil.deb").write_text("x"),
        "foreign",
        "pool/c/evil.deb",
    ),
    "page of the index edited": (
        lambda depot, _: rewrite(depot.root / VIEW / "python/simple/rich-text/index.html", "<a>"),
        "damaged",
        "rich-text/index.html",
    ),
    "Release edited": (
        lambda depot, _: rewrite(
            depot.root / REPOSITORY / "Release",
            (depot.root / REPOSITORY / "Release").read_text().replace("Packages", "Packagez"),
        ),
        "damaged",
        "Release",
    ),
    "signature edited": (lambda depot, _: flip(depot.root / REPOSITORY / "InRelease"), "unsigned", "debian-13-amd64"),
    "signature gone": (lambda depot, _: (depot.root / REPOSITORY / "InRelease").unlink(), "unsigned", "debian-13"),
    "signature of another key": (resign, "unsigned", "debian-13-amd64"),
    "by-hash edited": (
        lambda depot, _: rewrite(next((depot.root / REPOSITORY / "by-hash/SHA512").iterdir()), "x"),
        "damaged",
        "by-hash/SHA512",
    ),
    "link leads elsewhere": (
        lambda depot, _: ((depot.root / VIEW).unlink(), (depot.root / VIEW).symlink_to("../views")),
        "stale",
        "sites/bank-north",
    ),
    "view gone": (lambda depot, _: shutil.rmtree((depot.root / VIEW).resolve()), "missing", "views/bank-north/"),
    "lock broken": (
        lambda depot, _: (depot.root / "locks/bank-north.json").write_text("{"),
        "damaged",
        "locks/bank-north.json",
    ),
    "a site nobody locked": (lambda depot, _: (depot.root / "sites/other").symlink_to("."), "foreign", "sites/other"),
    "inventory old": (lambda depot, _: rewrite(depot.root / "inventory.json", "{}"), "stale", "inventory.json"),
}


@pytest.mark.parametrize("name", SHALLOW)
def test_damage_is_named_with_its_file(depot: Depot, key: Path, name: str) -> None:
    damage, kind, where = SHALLOW[name]
    damage(depot, key)
    found = depot.verify(deep=False)
    assert [fault for fault in found if fault.kind == kind and where in fault.path], found


def test_one_flipped_bit_of_any_blob_is_found_by_a_deep_look_only(depot: Depot) -> None:
    for item in sorted(depot.blobs.every(), key=lambda item: item.name):
        path = Path(item.path)
        flip(path, 17 % path.stat().st_size)
        faults = depot.verify(deep=True, workers=3)
        assert [fault.sha256 for fault in faults if "its bytes have the sha256" in fault.text] == [path.name]
        flip(path, 17 % path.stat().st_size)
    assert depot.verify(deep=True) == []


def test_reading_counts_every_byte(depot: Depot) -> None:
    seen: list[int] = []
    depot.verify(deep=True, tick=seen.append)
    assert sum(seen) == sum(depot.inventory()["blobs"].values())


def test_damaged_bytes_come_again_and_the_view_gets_them(depot: Depot) -> None:
    """The view's own link still has the damaged bytes when the blob is new: publishing has to see that."""
    path, lock = blob(depot), depot.lock("bank-north") or {}
    flip(path)
    fault = next(fault for fault in depot.verify(deep=True) if fault.sha256)
    assert depot.set_aside(fault.sha256)
    assert not depot.set_aside(fault.sha256)
    assert [fault.kind for fault in depot.verify(deep=True) if fault.sha256] == ["missing"]
    contents = small()
    contents.lock()
    fill(depot, contents)
    depot.collect_garbage()
    model = depot.root / VIEW / "models/smol/aaaaaaaaaaaa/deep/model.safetensors"
    assert model.read_bytes() != contents.contents[fault.sha256]
    assert depot.publish(lock)
    assert model.read_bytes() == contents.contents[fault.sha256]
    assert depot.verify(deep=True) == []


def test_a_depot_without_a_key_is_signed_when_there_is_one(tmp_path: Path, key: Path) -> None:
    contents = small()
    bare = Depot(tmp_path / "depot", Signer(tmp_path / "none"), patience=0)
    bare.prepare()
    lock = contents.lock()
    fill(bare, contents)
    bare.publish(lock)
    assert not (bare.root / REPOSITORY / "InRelease").exists()
    depot = Depot(bare.root, Signer(key), patience=0)
    assert [fault.kind for fault in depot.verify(deep=False)] == ["unsigned"]
    assert depot.sign() and not depot.sign()
    assert depot.verify(deep=True) == []
    assert b"BEGIN PGP PUBLIC KEY" in (depot.root / "keys/depot.asc").read_bytes()
    assert depot.publish(lock) is False


RPM = {
    "Packages/s/stub-1-1.noarch.rpm": b"rpm" * 100,
    "repodata/repomd.xml": b"<repomd/>",
    "repodata/1-primary.xml": b"1",
}
DNF = f"{VIEW}/packages/rocky-9-amd64"


def test_a_dnf_repository_is_signed_too(tmp_path: Path, key: Path) -> None:
    contents = small()
    contents.rpm_repository("rocky-9-amd64", RPM)
    depot = Depot(tmp_path / "depot", Signer(key), patience=0)
    depot.prepare()
    lock = contents.lock()
    fill(depot, contents)
    depot.publish(lock)
    assert depot.verify(deep=True) == []
    assert b"BEGIN PGP SIGNATURE" in (depot.root / DNF / "repodata/repomd.xml.asc").read_bytes()
    assert not (depot.root / DNF / "Release").exists()
    flip(depot.root / DNF / "repodata/repomd.xml", 3)
    assert ("unsigned", f"views/bank-north/{lock['digest'][7:19]}/packages/rocky-9-amd64") in [
        (fault.kind, fault.path) for fault in depot.verify(deep=False)
    ]


def test_packages_for_dnf_without_their_index_are_refused(tmp_path: Path, key: Path) -> None:
    contents = small()
    contents.rpm_repository("rocky-9-amd64", {path: data for path, data in RPM.items() if path.endswith(".rpm")})
    depot = Depot(tmp_path / "depot", Signer(key), patience=0)
    depot.prepare()
    lock = contents.lock()
    fill(depot, contents)
    with pytest.raises(Refusal, match=r"lists RPM packages and no repodata/repomd.xml; run the playbook lock"):
        depot.publish(lock)
    assert not (depot.root / VIEW).is_symlink()
