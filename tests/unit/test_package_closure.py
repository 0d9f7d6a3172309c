"""Closures by real APT from small signed repositories: complete, exact, proved, and nothing of this machine in them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure.debs import fetch
from ansible.module_utils.closure.sources import checked, for_suite, from_lines, of_machine
from ansible.module_utils.closure.stanzas import fields, split

from library.package_closure import run
from module_utils.closure import platforms
from tests.support.apt_repository import Package, Repository, build

ENGINE = Package("engine", "1:2.0-1", depends="engine-libs (= 2.0), base-tool, cache | store")
SYSTEM = (
    Package("base-tool", "1.0", essential=True),
    Package("base-libs", "1.0", essential=True),
    ENGINE,
    Package("engine-libs", "2.0"),
    Package("cache", "3.0"),
    Package("store", "3.0"),
    Package("rival", "1.0", conflicts="engine"),
    Package("unwanted", "9.9"),
)


@pytest.fixture(scope="module")
def _repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("apt"))
    made.publish(SYSTEM)
    return made


def resolve(repository: Repository, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "state": "resolved",
        "platform": "debian-13-amd64",
        "wishes": {"serve": ["engine"]},
        "bootstrap": ["store"],
        "base": "minimal",
        "base_packages": [],
        "base_status": None,
        "sources": repository.source("KEYRINGS/stub.asc"),
        "keys": {"stub.asc": repository.key},
        "repositories": [],
        "folder": None,
        "timeout": 60,
    }
    return run(given | changes, False)


def names(found: dict[str, Any], **flags: bool) -> list[str]:
    rows = found["platform"]["packages"]
    return [row["name"] for row in rows if all(row[flag] == value for flag, value in flags.items())]


def test_all_that_a_wish_needs_and_nothing_else(_repository: Repository) -> None:
    found = resolve(_repository)
    assert names(found) == ["base-libs", "base-tool", "cache", "engine", "engine-libs", "store"]
    assert names(found, base=True) == ["base-libs", "base-tool"]
    assert names(found, bootstrap=True) == ["store"]
    row = next(row for row in found["platform"]["packages"] if row["name"] == "engine")
    data = (_repository.folder / ENGINE.file).read_bytes()
    assert row == {
        "name": "engine",
        "version": "1:2.0-1",
        "architecture": "all",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "path": "pool/e/engine_2.0-1_all.deb",
        "origin": f"file:{_repository.folder}/engine_2.0-1_all.deb",
        "base": False,
        "bootstrap": False,
    }


def test_the_list_of_packages_is_theirs_with_paths_of_the_depot(_repository: Repository) -> None:
    found = resolve(_repository)
    rows = {row["name"]: row for row in found["platform"]["packages"]}
    stanzas = [fields(stanza) for stanza in split(found["indexes"]["Packages"])]
    assert [stanza["package"] for stanza in stanzas] == sorted(rows)
    for stanza in stanzas:
        row = rows[stanza["package"]]
        assert (stanza["filename"], stanza["sha256"], stanza["size"]) == (row["path"], row["sha256"], str(row["size"]))
        assert "md5sum" not in stanza
    data = found["indexes"]["Packages"].encode()
    told = {"path": "Packages", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert found["platform"]["indexes"] == [told]


def test_the_same_twice(_repository: Repository) -> None:
    assert resolve(_repository) == resolve(_repository)


def test_who_signed_stands_there(_repository: Repository) -> None:
    (row,) = resolve(_repository)["platform"]["repositories"]
    assert row["fingerprints"] == [_repository.fingerprint]


def test_a_role_that_comes_alone_to_a_host_finds_its_packages(_repository: Repository) -> None:
    """With `store` wished by another role, APT would take no `cache`; a host without that role needs it."""
    found = resolve(_repository, wishes={"serve": ["engine"], "files": ["store"]}, bootstrap=[])
    assert {"cache", "store"} <= set(names(found))


def test_roles_that_exclude_each_other(_repository: Repository) -> None:
    found = resolve(_repository, wishes={"serve": ["engine"], "other": ["rival"]})
    assert {"engine", "rival"} <= set(names(found))


def test_a_given_base_system_counts(_repository: Repository) -> None:
    status = "Package: cache\nStatus: install ok installed\nVersion: 3.0\nArchitecture: all\n\n"
    status += "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    found = resolve(_repository, base_status=status, bootstrap=[])
    assert found["platform"]["base"]["packages"] == [{"name": "cache", "version": "3.0", "architecture": "all"}]
    assert names(found, base=True) == ["cache"]
    assert names(found, base=False) == ["base-tool", "engine", "engine-libs"]


def test_a_name_that_no_source_has(_repository: Repository) -> None:
    with pytest.raises(Refusal, match=r"role docs cannot be resolved.*no-such-thing"):
        resolve(_repository, wishes={"docs": ["no-such-thing"]})


def test_a_repository_that_somebody_else_signed(_repository: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    with pytest.raises(Refusal, match="package lists cannot be fetched"):
        resolve(_repository, keys={"stub.asc": other.key})


def test_a_list_that_was_changed_after_signing(tmp_path: Path) -> None:
    made = Repository(tmp_path)
    made.publish(SYSTEM[:1])
    for name in ("Packages", "Packages.gz"):
        path = made.folder / name
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Refusal, match="package lists cannot be fetched"):
        resolve(made)


def test_half_of_the_sources_is_none(_repository: Repository) -> None:
    """APT itself would go on with the lists that it has, and the lock would hold what they happen to offer."""
    dead = "Types: deb\nURIs: http://127.0.0.1:9/\nSuites: ./\nSigned-By: KEYRINGS/stub.asc\n"
    with pytest.raises(Refusal, match="package lists cannot be fetched"):
        resolve(_repository, sources=f"{_repository.source('KEYRINGS/stub.asc')}\n{dead}")


def test_another_repository_of_a_role(_repository: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    other.publish([Package("extra", "5")])
    row = {"name": "extra", "url": f"file://{other.folder}", "suite": "./", "key": other.key}
    given = {"wishes": {"more": ["extra"]}, "repositories": [{**row, "key_fingerprints": [other.fingerprint]}]}
    assert "extra" in names(resolve(_repository, **given))
    given["repositories"] = [{**row, "key_fingerprints": ["A" * 40]}]
    with pytest.raises(Refusal, match=f"repository extra: .*expected {'A' * 40}"):
        resolve(_repository, **given)


@pytest.mark.parametrize("word", ["Trusted: yes", "Allow-Insecure: yes", "allow-weak: yes"])
def test_unsigned_sources_are_refused(_repository: Repository, word: str) -> None:
    with pytest.raises(Refusal, match="nobody signed"):
        resolve(_repository, sources=_repository.source("KEYRINGS/stub.asc") + word + "\n")


# Files


def fetched(rows: list[dict[str, Any]], folder: Path, check: bool = False) -> list[str]:
    given = {"state": "fetched", "platform": "debian-13-amd64", "packages": rows, "folder": str(folder), "timeout": 60}
    paths: list[str] = run(given, check)["fetched"]
    return paths


def test_files_are_fetched_once_and_proved(_repository: Repository, tmp_path: Path) -> None:
    rows = resolve(_repository)["platform"]["packages"]
    assert fetched(rows, tmp_path, check=True) == [row["path"] for row in rows]
    assert list(tmp_path.rglob("*.deb")) == []
    assert fetched(rows, tmp_path) == [row["path"] for row in rows]
    for row in rows:
        path = tmp_path / row["path"]
        assert not path.is_symlink()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
    assert fetched(rows, tmp_path) == []
    spoiled = tmp_path / rows[0]["path"]
    spoiled.write_bytes(b"x" * rows[0]["size"])
    assert fetched(rows, tmp_path) == [rows[0]["path"]]
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == sorted(Path(row["path"]).name for row in rows)


def test_every_file_that_cannot_be_had_is_named_and_the_others_come(tmp_path: Path) -> None:
    made = Repository(tmp_path / "apt")
    made.publish(SYSTEM[:4] + SYSTEM[4:6])
    rows = {row["name"]: row for row in resolve(made)["platform"]["packages"]}
    (made.folder / "engine-libs_2.0_all.deb").unlink()
    build(Package("cache", "3.0", content="somebody else's"), made.folder)
    with pytest.raises(Refusal) as refusal:
        fetched([*rows.values()], tmp_path / "out")
    assert "2 package files" in str(refusal.value)
    assert rows["engine-libs"]["path"] in str(refusal.value)
    assert rows["cache"]["path"] in str(refusal.value)
    assert {path.name for path in (tmp_path / "out").rglob("*.deb")} == {
        Path(row["path"]).name for name, row in rows.items() if name not in ("engine-libs", "cache")
    }


def test_a_fetcher_that_says_all_is_well_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = tmp_path / "stub_fetcher"
    stub.write_text('#!/bin/sh\nprintf other > "$3"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys.modules[fetch.__module__], "FETCHER", str(stub))
    row = {"path": "pool/x.deb", "size": 5, "origin": "file:///x", "sha256": hashlib.sha256(b"right").hexdigest()}
    with pytest.raises(Refusal, match=r"pool/x\.deb from file:///x: its bytes are not those that are locked"):
        fetched([row], tmp_path / "out")
    assert not (tmp_path / "out/pool/x.deb").exists()


@pytest.mark.parametrize("path", ["../x.deb", "/etc/x.deb", "pool//x.deb"])
def test_paths_stay_in_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(Refusal, match="paths that cannot be used"):
        fetched([{"path": path, "sha256": "0" * 64, "size": 1, "origin": "file:///x"}], tmp_path)


# Sources and platforms


def test_sources_of_another_release() -> None:
    text = "Types: deb\nURIs: https://a.example.org/bookworm-mirror\nSuites: bookworm bookworm-updates\n"
    assert for_suite(text, "bookworm", "trixie").splitlines() == [
        "Types: deb",
        "URIs: https://a.example.org/bookworm-mirror",
        "Suites: trixie trixie-updates",
    ]


def test_one_line_sources() -> None:
    text = "# a comment\ndeb [arch=amd64 signed-by=/k.gpg] https://a.example.org x-security main extra # b\n"
    text += "deb-src https://a.example.org x main\n"
    assert from_lines(text).splitlines() == [
        "Types: deb",
        "URIs: https://a.example.org",
        "Suites: x-security",
        "Components: main extra",
        "Signed-By: /k.gpg",
    ]
    with pytest.raises(Refusal, match="nobody signed"):
        checked(from_lines("deb [trusted=yes] https://a.example.org x main"))


def test_a_machine_of_another_distribution_is_no_source(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=ubuntu\nVERSION_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04"\n')
    source = tmp_path / "x.list"
    source.write_text("deb https://a.example.org noble main\n")
    with pytest.raises(Refusal, match=r"runs Ubuntu 24\.04, no release of Debian"):
        of_machine(platforms.parse("debian-13-amd64"), [str(source)], str(release))
    found = of_machine(platforms.parse("ubuntu-22.04-amd64"), [str(source)], str(release))
    assert "Suites: jammy" in found


@pytest.mark.parametrize(
    "name", ["debian-12-amd64", "debian-13-arm64", "ubuntu-24.04-amd64", "rocky-9-amd64", "rhel-10-arm64"]
)
def test_a_platforms_facts_name_it(name: str) -> None:
    assert platforms.name_of(platforms.facts(platforms.parse(name))) == name


@pytest.mark.parametrize("name", ["", "debian", "debian-13", "debian-99-amd64", "debian-13-sparc", "arch-1-amd64"])
def test_no_platform(name: str) -> None:
    with pytest.raises(platforms.UnknownPlatform):
        platforms.parse(name)


def test_facts_of_no_platform() -> None:
    assert platforms.name_of({"distribution": "Archlinux", "architecture": "x86_64"}) == ""
    assert platforms.name_of({}) == ""
