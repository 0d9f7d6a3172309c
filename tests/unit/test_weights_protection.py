"""Files that the file system itself protects: set, kept through all the work on a store, taken away, or refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import protection
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import absent, planned
from ansible.module_utils.artifacts.protection import IMMUTABLE, NONE, VERITY, is_protected, loosen, problem, protect
from ansible.module_utils.artifacts.settling import Settings

from tests.support.two_models import FIRST, ONE, SECOND, SHARED, TWO, Site
from tests.support.weight_trees import REVISIONS, digest, model, write_tree

ONE_OF_TWO = digest(SECOND["own.dat"])
LATER = model(SECOND, name="one", revision=REVISIONS[1])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    why = problem(tmp_path, IMMUTABLE)
    if why is not None:
        pytest.skip(f"in {tmp_path} {why}")
    made = Site(tmp_path, {"protect": IMMUTABLE})
    yield made
    for path in tmp_path.rglob("*"):
        loosen(path)


def converged(site: Site, *wanted: dict[str, Any], **settings: Any) -> bool:
    """Whether another run changes nothing, reads nothing, and every file is protected."""
    changed, outcomes = site.bring(*wanted, **settings)
    kept = all(is_protected(path, IMMUTABLE) for path in site.files())
    return not changed and kept and not any(item.bytes_hashed for item in outcomes)


def test_immutable_files_cannot_be_changed_by_root(site: Site) -> None:
    site.bring(ONE)
    path = site.tree("one") / "own.dat"
    for change in (
        lambda: path.open("r+b"),
        path.unlink,
        lambda: path.rename(path.with_name("x")),
        lambda: path.chmod(0o644),
    ):
        with pytest.raises(PermissionError):
            change()
    assert converged(site, ONE)


def test_all_work_on_a_store_goes_on_with_immutable_files(site: Site) -> None:
    site.bring(ONE)
    _, (_, two) = site.bring(ONE, TWO)  # links to immutable files
    assert two.bytes_copied == 60_000
    assert converged(site, ONE, TWO)
    inodes = {path.stat().st_ino for path in site.files()}
    assert len(inodes) == 4  # no link became a copy
    write_tree(site.source / "one", SECOND)
    site.bring(LATER, TWO, keep_revisions=1)  # prunes
    assert not site.tree("one").exists()
    assert converged(site, LATER, TWO, keep_revisions=1)
    absent(site.store, [("two", None)], Settings(protect=IMMUTABLE))
    assert not site.tree("two").exists()
    assert converged(site, LATER, keep_revisions=1)


def test_blob_that_no_tree_has_any_more_is_removed(site: Site) -> None:
    site.bring(ONE, TWO)
    path = site.tree("two") / "own.dat"
    blob = site.store.blobs.path(ONE_OF_TWO)
    loosen(path)
    path.unlink()
    protect(blob, IMMUTABLE)
    absent(site.store, [("two", None)], Settings(protect=IMMUTABLE))
    assert not blob.exists()
    assert converged(site, ONE)


def test_damage_to_a_file_that_two_models_share_is_mended(site: Site) -> None:
    site.bring(ONE, TWO)
    path = site.tree("one") / "shared.dat"
    loosen(path)
    path.chmod(0o644)
    path.write_bytes(b"X" * 100_000)
    protect(path, IMMUTABLE)
    _, (one, two) = site.bring(ONE, TWO)
    assert (one.state, one.fetched, two.state) == ("mended", ["shared.dat"], "mended")
    assert (site.tree("two") / "shared.dat").read_bytes() == SHARED["shared.dat"]
    assert converged(site, ONE, TWO)


def test_modes_and_unlisted_files_are_put_right(site: Site) -> None:
    site.bring(ONE)
    tree = site.tree("one")
    tree.chmod(0o755)
    (tree / "evil.dat").write_bytes(b"evil")
    protect(tree / "evil.dat", IMMUTABLE)
    loosen(tree / "own.dat")
    (tree / "own.dat").chmod(0o666)
    protect(tree / "own.dat", IMMUTABLE)
    _, (outcome,) = site.bring(ONE)
    assert (outcome.state, outcome.removed) == ("mended", ["evil.dat"])
    assert sorted(path.name for path in tree.iterdir()) == sorted(FIRST)
    assert (tree / "own.dat").stat().st_mode & 0o777 == 0o444
    assert converged(site, ONE)


def test_protection_comes_and_goes_with_the_variable_and_is_foretold(site: Site) -> None:
    site.bring(ONE, protect=NONE)
    assert site.bring(ONE, check=True)[0] is True
    assert planned(site.store, parse_models([ONE]), Settings(protect=IMMUTABLE))[0] is True
    assert not is_protected(site.tree("one") / "own.dat", IMMUTABLE)
    changed, (outcome,) = site.bring(ONE)
    assert (changed, outcome.bytes_hashed) == (True, 0)
    assert planned(site.store, parse_models([ONE]), Settings(protect=IMMUTABLE))[0] is False
    assert converged(site, ONE)
    loosen(site.tree("one") / "own.dat")  # a run that was killed in the middle, or an operator
    changed, _ = site.bring(ONE)
    assert changed
    assert site.bring(ONE, protect=NONE)[0] is True
    assert not any(is_protected(path, IMMUTABLE) for path in site.files())
    assert site.bring(ONE, protect=NONE)[0] is False


def stub_ioctl(monkeypatch: pytest.MonkeyPatch, refusal: int = 0) -> set[int]:
    """Stands for a kernel with fs-verity, which this machine's need not have; returns the inodes that have it."""
    inodes: set[int] = set()
    real = protection.fcntl.ioctl

    def ioctl(descriptor: int, request: int, argument: Any, mutate: bool = True) -> int:
        inode = os.fstat(descriptor).st_ino
        if request == protection.FS_IOC_ENABLE_VERITY:
            assert len(argument) == 128  # as the kernel's header has it
            if refusal:
                raise OSError(refusal, os.strerror(refusal))
            inodes.add(inode)
            return 0
        answer: int = real(descriptor, request, argument, mutate)
        if request == protection.FS_IOC_GETFLAGS and inode in inodes:
            argument[:4] = (int.from_bytes(argument[:4], "little") | protection.VERITY_FLAG).to_bytes(4, "little")
        return answer

    monkeypatch.setattr(protection.fcntl, "ioctl", ioctl)
    return inodes


def test_verity_is_asked_for_once_per_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    inodes = stub_ioctl(monkeypatch)
    site.bring(ONE, TWO, protect=VERITY)
    assert {path.stat().st_ino for path in site.files()} <= inodes
    changed, outcomes = site.bring(ONE, TWO, protect=VERITY)
    assert (changed, [item.bytes_hashed for item in outcomes]) == (False, [0, 0])
    assert site.bring(ONE, TWO, protect=NONE)[0] is False  # it cannot be taken away, and does no harm


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EOPNOTSUPP, "its file system has no fs-verity (ext4: tune2fs -O verity"),
        (errno.ENOTTY, "its file system has no fs-verity"),
        (errno.EPERM, "root may not do that here"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_file_system_cannot_do_is_refused_before_anything_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    site = Site(tmp_path, {"protect": IMMUTABLE})
    stub_ioctl(monkeypatch, number)
    with pytest.raises(Refusal) as caught:
        site.bring(ONE, protect=VERITY)
    assert said in str(caught.value)
    assert str(site.store.models) in str(caught.value)
    assert "weights_protect is verity" in str(caught.value)
    assert site.files() == []
    assert list(site.store.incoming.iterdir()) == []


def test_missing_capability_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, {"protect": IMMUTABLE})
    real = protection.fcntl.ioctl

    def refuse(descriptor: int, request: int, *rest: Any) -> Any:
        if request == protection.FS_IOC_SETFLAGS:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(descriptor, request, *rest)

    monkeypatch.setattr(protection.fcntl, "ioctl", refuse)
    with pytest.raises(Refusal, match="CAP_LINUX_IMMUTABLE"):
        site.bring(ONE)
    assert site.bring(ONE, protect=NONE)[0] is True


def test_file_system_without_flags_serves_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, {"protect": IMMUTABLE})

    def refuse(descriptor: int, request: int, *rest: Any) -> Any:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(protection.fcntl, "ioctl", refuse)
    assert site.bring(ONE, TWO, protect=NONE)[0] is True
    assert site.bring(ONE, TWO, protect=NONE)[0] is False
    with pytest.raises(Refusal, match="no immutable flag"):
        site.bring(ONE, TWO)
