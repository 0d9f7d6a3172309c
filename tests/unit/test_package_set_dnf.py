"""Strict mode with DNF's own library: what a transaction would bring, from a repository as a depot has it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.package_dnf import options, rehearsed
from ansible.module_utils.package_lock import PackageLock
from ansible.module_utils.package_tools import fits

from tests.support import programs
from tests.support.rpm_repository import Rpm, RpmRepository

SYSTEM = (
    Rpm("engine", "1.0", epoch=1, requires=("engine-libs",)),
    Rpm("engine", "2.0", epoch=1, requires=("engine-libs", "addon")),
    Rpm("engine-libs", "1.0"),
    Rpm("engine-libs", "2.0"),
    Rpm("addon", "1.0"),
)
OLD = {"engine": "1:1.0-1.el9", "engine-libs": "1.0-1.el9"}


@pytest.fixture(scope="module")
def _repository(tmp_path_factory: pytest.TempPathFactory) -> RpmRepository:
    programs.rpm_tools()
    made = RpmRepository(tmp_path_factory.mktemp("rpm"))
    made.publish(SYSTEM, signed=False)
    folder = made.folder.parent / "repos.d"
    folder.mkdir()
    key = str(made.folder.parent / "key.asc")
    (folder / "depot.repo").write_text(made.source(key, packages=False))
    (folder / "other.repo").write_text("[other]\nname=other\nbaseurl=http://127.0.0.1:9/\nenabled=1\n")
    return made


def lock(repository: RpmRepository, versions: dict[str, str], **sums: str) -> PackageLock:
    rows = {}
    for name, version in versions.items():
        file = repository.folder / f"{name}-{version.rpartition(':')[2]}.noarch.rpm"
        known = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "0" * 64
        sha256 = sums.get(name.replace("-", "_"), known)
        rows[name] = {"version": version, "architecture": "noarch", "sha256": sha256}
    return PackageLock("rocky-9-amd64", "", str(repository.folder.parent / "repos.d/depot.repo"), rows)


def rehearse(known: PackageLock, folder: Path, *packages: str) -> tuple[list[str], str]:
    (folder / "logdir").mkdir(exist_ok=True)
    (folder / "root").mkdir(exist_ok=True)
    folders = {name: str(folder / name) for name in ("cachedir", "persistdir", "logdir")}
    found: tuple[list[str], str] = rehearsed(known, packages, 60, {"root": str(folder / "root"), "folders": folders})
    return found


def test_the_locked_versions_though_newer_ones_are_there(_repository: RpmRepository, tmp_path: Path) -> None:
    found = rehearse(lock(_repository, OLD), tmp_path, "engine=1:1.0-1.el9")
    assert found == (["engine-1:1.0-1.el9.noarch", "engine-libs-1.0-1.el9.noarch"], "")


def test_what_would_come_along_is_refused_by_name(_repository: RpmRepository, tmp_path: Path) -> None:
    known = lock(_repository, {"engine": "1:2.0-1.el9", "engine-libs": "1.0-1.el9"})
    problem = rehearse(known, tmp_path, "engine=1:2.0-1.el9")[1]
    assert "not in the lock: addon=1.0-1.el9" in problem
    assert "lock/platforms/rocky-9-amd64.yml" in problem and "./redoubt play lock" in problem


def test_a_version_that_the_depot_lacks(_repository: RpmRepository, tmp_path: Path) -> None:
    problem = rehearse(lock(_repository, {"engine": "7.0-1"}), tmp_path, "engine=7.0-1")[1]
    assert "depot.repo lacks engine-7.0-1, which lock/platforms/rocky-9-amd64.yml lists" in problem
    assert "./redoubt play gather" in problem and "./redoubt bundle import" in problem


def test_other_bytes_under_the_same_version(_repository: RpmRepository, tmp_path: Path) -> None:
    problem = rehearse(lock(_repository, OLD, engine_libs="f" * 64), tmp_path, "engine=1:1.0-1.el9")[1]
    assert "does not have the bytes of the lock" in problem and "engine-libs 1.0-1.el9" in problem


def test_lists_that_nobody_signed(_repository: RpmRepository, tmp_path: Path) -> None:
    signature = _repository.folder / "repodata/repomd.xml.asc"
    kept = signature.read_bytes()
    try:
        signature.unlink()
        problem = rehearse(lock(_repository, OLD), tmp_path, "engine=1:1.0-1.el9")[1]
    finally:
        signature.write_bytes(kept)
    assert "repomd.xml.asc" in problem


def test_a_wish_without_the_epoch_is_the_locked_version() -> None:
    row: dict[str, Any] = {"version": "3:580.95.05-1.el9", "architecture": "x86_64", "sha256": "a" * 64}
    known = PackageLock("rocky-9-amd64", "", "/x.repo", {"driver": row})
    assert known.wanted(["driver=580.95.05-*"], fits) == (["driver=3:580.95.05-1.el9"], "")
    assert known.wanted(["driver"], fits) == (["driver=3:580.95.05-1.el9"], "")
    assert "locked: 3:580.95.05-1.el9" in known.wanted(["driver=580.105-*"], fits)[1]
    debian = PackageLock("debian-13-amd64", "", "/x.sources", {"driver": row})
    assert "locked: 3:580.95.05-1.el9" in debian.wanted(["driver=580.95.05-*"], fits)[1]


def test_one_repository_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "depot.repo"
    path.write_text("[redoubt-depot]\nbaseurl=https://a.example.org/%40/\n")
    assert options(str(path)) == [f"--setopt=reposdir={tmp_path}", "--disablerepo=*", "--enablerepo=redoubt-depot"]
