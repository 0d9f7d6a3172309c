"""Closures by real DNF from small signed repositories: complete, exact, proved, and served again by real DNF."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure.repos import checked

from library.package_closure import run
from tests.support import programs
from tests.support.rpm_repository import Rpm, RpmRepository, build

ENGINE = Rpm(
    "engine", "2.0", epoch=1, requires=("engine-libs = 2.0", "/usr/share/stub/cache"), recommends=("unwanted",)
)
SYSTEM = (
    Rpm("base-tool", "1.0", core=True, requires=("base-libs",)),
    Rpm("base-libs", "1.0"),
    Rpm("engine", "1.0", requires=("engine-libs = 1.0",)),
    ENGINE,
    Rpm("engine-libs", "2.0", architecture="x86_64"),
    Rpm("engine-libs", "2.0", architecture="aarch64"),
    Rpm("legacy", "1.0", architecture="i686"),
    Rpm("cache", "3.0"),
    Rpm("store", "3.0"),
    Rpm("rival", "1.0", conflicts=("engine",)),
    Rpm("unwanted", "9.9"),
    Rpm("broken", "1.0", requires=("no-such-part >= 4",)),
)


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    programs.rpm_tools()


@pytest.fixture(scope="module")
def _repository(tmp_path_factory: pytest.TempPathFactory) -> RpmRepository:
    made = RpmRepository(tmp_path_factory.mktemp("rpm"))
    made.publish(SYSTEM)
    return made


def resolve(repository: RpmRepository, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "state": "resolved",
        "platform": "rocky-9-amd64",
        "wishes": {"serve": ["engine"]},
        "bootstrap": ["store"],
        "base": "minimal",
        "base_packages": [],
        "base_status": None,
        "streams": [],
        "sources": repository.source("KEYRINGS/stub.asc"),
        "keys": {"stub.asc": repository.key},
        "repositories": [],
        "folder": None,
        "timeout": 60,
    }
    return run(given | changes, False)


def small(folder: Path, *packages: Rpm, signed: bool = True) -> RpmRepository:
    made = RpmRepository(folder)
    made.publish(packages or SYSTEM[:2], signed=signed)
    return made


def names(found: dict[str, Any], **flags: bool) -> list[str]:
    rows = found["platform"]["packages"]
    return [row["name"] for row in rows if all(row[flag] == value for flag, value in flags.items())]


def test_all_that_a_wish_needs_and_nothing_else(_repository: RpmRepository, tmp_path: Path) -> None:
    found = resolve(_repository, folder=str(tmp_path))
    assert names(found) == ["base-libs", "base-tool", "cache", "engine", "engine-libs", "store"]
    assert names(found, base=True) == ["base-libs", "base-tool"]
    assert names(found, bootstrap=True) == ["store"]
    row = next(row for row in found["platform"]["packages"] if row["name"] == "engine")
    data = (_repository.folder / ENGINE.file).read_bytes()
    assert row == {
        "name": "engine",
        "version": "1:2.0-1.el9",
        "architecture": "noarch",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "path": "pool/e/engine-2.0-1.el9.noarch.rpm",
        "origin": f"file://{_repository.folder}/{ENGINE.file}",
        "base": False,
        "bootstrap": False,
    }
    assert (tmp_path / row["path"]).read_bytes() == data
    (source,) = found["platform"]["repositories"]
    assert source["fingerprints"] == [_repository.fingerprint]
    assert source["uri"] == f"file://{_repository.folder}/"


@pytest.mark.parametrize(("platform", "machine"), [("rocky-9-amd64", "x86_64"), ("almalinux-9-arm64", "aarch64")])
def test_another_architecture_than_this_machine_s(_repository: RpmRepository, platform: str, machine: str) -> None:
    found = resolve(_repository, platform=platform)
    assert [row["architecture"] for row in found["platform"]["packages"] if row["name"] == "engine-libs"] == [machine]


def test_packages_of_the_older_machine_are_none(_repository: RpmRepository) -> None:
    """DNF would take them where nothing else provides what is asked for."""
    with pytest.raises(Refusal, match="no repository has legacy"):
        resolve(_repository, wishes={"old": ["legacy"]})


def test_the_same_twice_whenever_the_files_came(_repository: RpmRepository, tmp_path: Path) -> None:
    first = resolve(_repository, folder=str(tmp_path))
    for path in tmp_path.rglob("*.rpm"):
        path.touch()
    assert resolve(_repository, folder=str(tmp_path)) == first
    assert resolve(_repository) == first


def test_the_lists_are_a_repository_that_dnf_installs_from(_repository: RpmRepository, tmp_path: Path) -> None:
    """From a folder with nothing else: packages as fetched, lists as locked, signed as a depot signs them."""
    depot = tmp_path / "repo"
    found = resolve(_repository, folder=str(depot))
    for row in found["platform"]["indexes"]:
        path, text = depot / row["path"], found["indexes"][row["path"]]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        assert (hashlib.sha256(text.encode()).hexdigest(), len(text.encode())) == (row["sha256"], row["size"])
    key = _repository.folder.parent / "key.asc"
    command = ["dnf", "-q", "-y", "--installroot", str(tmp_path / "root"), "--releasever", "9", "--downloadonly"]
    command += ["--repofrompath", f"depot,file://{depot}", "--repo", "depot", "--setopt=depot.repo_gpgcheck=1"]
    command += [f"--setopt=depot.gpgkey=file://{key}", "--setopt=install_weak_deps=0", "--forcearch", "x86_64"]
    command += ["--setopt=depot.skip_if_unavailable=0"]
    command += ["--destdir", str(tmp_path / "got"), "install", "engine"]
    unsigned = subprocess.run(command, capture_output=True, text=True, check=False)
    assert unsigned.returncode != 0 and "repomd" in unsigned.stderr
    _repository.sign(depot)
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "got").iterdir()} == {
        Path(row["path"]).name for row in found["platform"]["packages"] if row["name"].startswith(("engine", "cache"))
    }


def test_roles_that_exclude_each_other(_repository: RpmRepository) -> None:
    assert {"engine", "rival"} <= set(names(resolve(_repository, wishes={"serve": ["engine"], "other": ["rival"]})))


def test_a_version_that_was_wished(_repository: RpmRepository) -> None:
    found = resolve(_repository, wishes={"serve": ["engine=2.0-*"]})
    assert [row["version"] for row in found["platform"]["packages"] if row["name"] == "engine"] == ["1:2.0-1.el9"]
    with pytest.raises(Refusal, match=r"role serve cannot be resolved.*no repository has engine-7\.0"):
        resolve(_repository, wishes={"serve": ["engine=7.0"]})


def test_a_stream_of_a_module(tmp_path: Path) -> None:
    """Its packages are hidden until it is enabled, and those of other streams stay so."""
    labels = {"driver:580:1:stub": "580.1", "driver:595:1:stub": "595.1"}
    made = small(tmp_path, *(Rpm("driver", version, module=label) for label, version in labels.items()))
    given: dict[str, Any] = {"bootstrap": [], "base_packages": ["driver"], "wishes": {}}
    with pytest.raises(Refusal, match="cannot be resolved"):
        resolve(made, **given)
    for stream, version in (("driver:580", "580.1-1.el9"), ("driver:595", "595.1-1.el9")):
        rows = resolve(made, streams=[stream], **given)["platform"]["packages"]
        assert [row["version"] for row in rows] == [version]
    with pytest.raises(Refusal, match="driver:600"):
        resolve(made, streams=["driver:600"], **given)


def test_what_cannot_be_had_is_named(_repository: RpmRepository) -> None:
    with pytest.raises(Refusal, match=r"role docs cannot be resolved.*no repository has no-such-thing, nor-this"):
        resolve(_repository, wishes={"docs": ["no-such-thing", "nor-this"]})
    with pytest.raises(Refusal, match=r"role docs.*nothing provides no-such-part >= 4 needed by broken-1\.0-1\.el9"):
        resolve(_repository, wishes={"docs": ["broken"]})


def test_a_base_system_that_nobody_states(tmp_path: Path) -> None:
    made = small(tmp_path, Rpm("engine", "1"))
    with pytest.raises(Refusal, match=r"no group 'core'.*base_packages"):
        resolve(made, bootstrap=[])
    found = resolve(made, bootstrap=[], base_packages=["engine"])
    assert names(found, base=True) == ["engine"]


# Trust


def test_lists_that_nobody_signed(tmp_path: Path) -> None:
    made = small(tmp_path)
    (made.folder / "repodata/repomd.xml.asc").unlink()
    with pytest.raises(Refusal, match=r"package lists cannot be used.*repomd\.xml\.asc"):
        resolve(made, wishes={}, bootstrap=[])


def test_lists_that_somebody_else_signed(_repository: RpmRepository, tmp_path: Path) -> None:
    other = RpmRepository(tmp_path)
    with pytest.raises(Refusal, match=r"package lists cannot be used.*(?i:signature)"):
        resolve(_repository, keys={"stub.asc": other.key})


def test_lists_that_were_changed_after_signing(tmp_path: Path) -> None:
    made = small(tmp_path)
    path = made.folder / "repodata/repomd.xml"
    path.write_bytes(path.read_bytes().replace(b"<revision>", b"<revision>1"))
    with pytest.raises(Refusal, match=r"package lists cannot be used.*(?i:signature)"):
        resolve(made, wishes={}, bootstrap=[])


def test_packages_that_nobody_signed_where_only_they_are_promised(tmp_path: Path) -> None:
    """The way of most EL mirrors: no signature of the lists, one in each package."""
    given: dict[str, Any] = {"wishes": {}, "bootstrap": []}
    good = small(tmp_path / "good")
    (good.folder / "repodata/repomd.xml.asc").unlink()
    source = good.source("KEYRINGS/stub.asc", lists=False)
    assert names(resolve(good, sources=source, **given)) == ["base-libs", "base-tool"]
    with pytest.raises(Refusal, match=r"2 packages cannot be trusted.*\n.*base-libs-1\.0-1\.el9\.noarch\.rpm"):
        resolve(good, sources=source, keys={"stub.asc": RpmRepository(tmp_path / "other").key}, **given)
    bad = small(tmp_path / "bad", signed=False)
    with pytest.raises(Refusal, match=r"base-tool-1\.0-1\.el9\.noarch\.rpm of \[stub\] has no good signature"):
        resolve(bad, sources=bad.source("KEYRINGS/stub.asc", lists=False), **given)


def test_signed_lists_speak_for_their_packages(tmp_path: Path) -> None:
    made = small(tmp_path, signed=False)
    source = made.source("KEYRINGS/stub.asc", packages=False)
    assert names(resolve(made, sources=source, wishes={}, bootstrap=[])) == ["base-libs", "base-tool"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("gpgcheck=0\nrepo_gpgcheck=0", "nobody signed"),
        ("enabled=1", "nobody signed"),
        ("gpgcheck=1", "names no key"),
        ("gpgcheck=1\ngpgkey=https://a.example.org/key", "anybody on the way"),
        ("gpgcheck=1\ngpgkey=file:///k\nsslverify=0", "sslcacert"),
    ],
)
def test_sources_that_promise_nothing_are_refused(change: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        checked(f"[a]\nbaseurl=https://a.example.org/\n{change}\n")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[main]\ngpgcheck=1", "[a]\ngpgcheck=1\ngpgkey=file:///k", "[a]\nenabled=0"]
)
def test_no_source(text: str) -> None:
    with pytest.raises(Refusal, match="package source"):
        checked(text)


def test_half_of_the_sources_is_none(_repository: RpmRepository) -> None:
    dead = _repository.source("KEYRINGS/stub.asc", address="http://127.0.0.1:9/").replace("stub", "dead", 2)
    dead = dead.replace("KEYRINGS/dead", "KEYRINGS/stub") + "skip_if_unavailable=1\n"
    with pytest.raises(Refusal, match=r"package lists cannot be used.*dead"):
        resolve(_repository, sources=f"{_repository.source('KEYRINGS/stub.asc')}\n{dead}")


def test_another_repository_of_a_role(_repository: RpmRepository, tmp_path: Path) -> None:
    other = small(tmp_path, Rpm("extra", "5"))
    (other.folder / "repodata/repomd.xml.asc").unlink()
    row = {"name": "extra", "url": f"file://{other.folder}", "key": other.key}
    given = {"wishes": {"more": ["extra"]}, "repositories": [{**row, "key_fingerprints": [other.fingerprint]}]}
    assert "extra" in names(resolve(_repository, **given))
    given["repositories"] = [{**row, "key_fingerprints": ["A" * 40]}]
    with pytest.raises(Refusal, match=f"repository extra: .*expected {'A' * 40}"):
        resolve(_repository, **given)


# Bytes


def test_a_sum_that_is_not_the_file_s(tmp_path: Path) -> None:
    """The lists are signed, and wrong: as when somebody exchanged a package and kept the mirror's lists."""
    made = small(tmp_path)
    build(Rpm("base-libs", "1.0", content="of somebody else"), made.folder)
    with pytest.raises(Refusal, match=r"1 package file of the lock cannot be had.*\n.*pool/b/base-libs"):
        resolve(made, wishes={}, bootstrap=[])


def test_a_sum_of_another_kind_proves_nothing(tmp_path: Path) -> None:
    made = small(tmp_path)
    subprocess.run(["createrepo_c", "-q", "-s", "sha1", str(made.folder)], check=True, capture_output=True)
    made.sign()
    with pytest.raises(Refusal, match="no SHA-256 for base-libs"):
        resolve(made, wishes={}, bootstrap=[], base_packages=["base-libs"])


def test_lists_that_were_cut(tmp_path: Path) -> None:
    made = small(tmp_path)
    (primary,) = made.folder.glob("repodata/*primary.xml*")
    primary.write_bytes(primary.read_bytes()[:-40])
    with pytest.raises(Refusal, match="package lists cannot be used"):
        resolve(made, wishes={}, bootstrap=[])


def test_a_file_that_was_cut_is_continued_or_named(tmp_path: Path) -> None:
    made = small(tmp_path / "apart")
    rows = resolve(made, wishes={}, bootstrap=[])["platform"]["packages"]
    given = {"state": "fetched", "platform": "rocky-9-amd64", "packages": rows, "timeout": 60}
    folder = tmp_path / "out"
    assert len(run({**given, "folder": str(folder)}, False)["fetched"]) == 2
    path = folder / rows[0]["path"]
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    assert run({**given, "folder": str(folder)}, False)["fetched"] == [rows[0]["path"]]
    assert path.read_bytes() == whole
    source = made.folder / Path(rows[0]["path"]).name
    source.write_bytes(whole[:-1])
    path.unlink()
    with pytest.raises(Refusal, match=rf"1 package file .*\n{re.escape(rows[0]['path'])}"):
        run({**given, "folder": str(folder)}, False)
    assert not path.exists()


def test_the_lists_hold_what_the_files_say(_repository: RpmRepository) -> None:
    texts = resolve(_repository)["indexes"]
    assert sorted(texts) == ["repodata/filelists.xml", "repodata/primary.xml", "repodata/repomd.xml"]
    theirs = gzip.decompress(next(_repository.folder.glob("repodata/*primary.xml.gz")).read_bytes()).decode()
    for text in re.findall(r"<rpm:entry [^>]*>", texts["repodata/primary.xml"]):
        assert text in theirs
    assert "no-such-part" not in texts["repodata/primary.xml"]
