"""Package databases read, sets installed in one transaction, held, and offered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.package_dnf import newer, parse_rpm, parse_version_locks, stream_enabled
from ansible.module_utils.package_tools import (
    Refused,
    missing,
    parse_dpkg,
    parse_dpkg_holds,
    parse_madison,
)

from library import package_set, packages_offered
from tests.support import programs


def test_dpkg_states() -> None:
    output = (
        "nginx\tinstall ok installed\t1.26\n"
        "held\thold ok installed\t2\n"
        "gone\tdeinstall ok config-files\t3\n"
        "half\tinstall reinstreq half-installed\t4\n"
    )
    assert parse_dpkg(output) == {"nginx": "1.26", "held": "2"}
    assert parse_dpkg_holds(output) == {"held"}


def test_a_package_that_dpkg_only_knows_may_be_the_last_line() -> None:
    """The runner strips its output, and with it the tab before a version that is not there."""
    output = "curl\tinstall ok installed\t8\npython3-venv\tunknown ok not-installed"
    assert parse_dpkg(output) == {"curl": "8"}
    assert parse_dpkg_holds(output) == set()


def test_stream_of_a_dnf_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[stream_enabled.__module__], "MODULES", str(tmp_path))
    assert not stream_enabled("nvidia-driver:580-open")
    (tmp_path / "nvidia-driver.module").write_text(
        "[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nstate=enabled\n"
    )
    assert stream_enabled("nvidia-driver:580-open")
    assert not stream_enabled("nvidia-driver:595-open")


def test_rpm_locks_are_of_whole_names() -> None:
    text = "# Added lock\nnvidia-driver-cuda-3:580.126.20-1.el9.*\n!kernel-0:5.14-1.*\n"
    assert parse_version_locks(text, ["nvidia-driver", "nvidia-driver-cuda", "kernel"]) == {"nvidia-driver-cuda"}


def test_rpm_says_what_is_not_installed() -> None:
    output = "nginx\t1.26-1.el9\npackage curl is not installed\nengine\t3:1-2\nold\t0:1-2\n"
    assert parse_rpm(output) == {"nginx": "1.26-1.el9", "engine": "3:1-2", "old": "1-2"}


VERSIONS = (
    "1-1", "1-1.el9", "1.0-1", "1.0-2", "1.0~rc1-1", "1.0~rc2-1", "1.0^git1-1", "1.0^git1.1-1", "1.0^-1", "1.0.1-1",
    "1.0a-1", "1.01-1", "1.10-1", "1.9-1", "1a.0-1", "a-1", "2-1", "10-1", "2.0_1-1", "2.0-1.el9_4", "2.0-1.el9",
    "~-1", "^-1",
)  # fmt: skip


def test_versions_are_ordered_as_rpm_orders_them() -> None:
    """Against RPM's own comparison, which its macros reach."""
    rpm = programs.client("rpm", "rpm")
    pairs = [(one.split("-"), other.split("-")) for one in VERSIONS for other in VERSIONS]
    text = "".join(f"print(rpm.vercmp('{a[0]}','{b[0]}'),rpm.vercmp('{a[1]}','{b[1]}'),'')" for a, b in pairs)
    told = subprocess.run(
        [rpm, "--eval", f"%{{lua:{text}}}"], check=True, capture_output=True, text=True
    ).stdout.split()
    for number, (a, b) in enumerate(pairs):
        first, second = map(int, told[number * 2 : number * 2 + 2])
        assert newer("-".join(a), "-".join(b)) == ((first or second) > 0), (a, b)
    assert newer("1:1-1", "2-1")
    assert not newer("2-1", "1:1-1")


def test_missing_names_and_versions() -> None:
    assert missing(["a", "b=2", "c=3", "d"], {"a": "1", "b": "2", "c": "4"}) == ["c=3", "d"]
    assert missing(["a=580.9-*", "b=580.9-*"], {"a": "580.95-1", "b": "580.9-1ubuntu1"}) == ["a=580.9-*"]


class StubHost:
    """Stands for the package tools; notes what it is told to do."""

    apt = True
    refuses = False

    def __init__(self, versions: dict[str, str], held: set[str]) -> None:
        self.versions, self.held, self.told, self.replaced = versions, held, list[str](), list[str]()

    def state(self, names: list[str]) -> tuple[dict[str, str], set[str]]:
        return {name: self.versions[name] for name in names if name in self.versions}, self.held & set(names)

    def holds(self, patterns: list[str]) -> list[str]:
        return sorted(name for name in self.held for pattern in patterns if name.startswith(pattern.rstrip("*")))

    def refresh(self, ours: list[str]) -> str:
        self.ours = ours
        return ""

    def install(self, packages: list[str], stale: str, ours: list[str], *, older: bool, held: bool) -> None:
        assert ours == self.ours
        if self.refuses:
            raise Refused("no")
        self.told.append(f"install {' '.join(packages)} older={older} held={held}{stale}")
        self.versions |= dict(item.split("=") for item in packages)
        self.versions = {name: version for name, version in self.versions.items() if name not in self.replaced}

    def hold(self, names: list[str], held: bool) -> None:
        self.told.append(f"{'hold' if held else 'release'} {' '.join(names)}")
        self.held = self.held | set(names) if held else self.held - set(names)


def run(host: StubHost, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    monkeypatch.setattr(package_set, "Host", lambda *_: host)
    params = {"first": ["pin=2"], "packages": ["a=2", "b=2"], "conflicts": [], "hold": True, "downgrade": False}
    return package_set.apply(
        {
            **params,
            "gives_way": [],
            "stream": "",
            "installed_too": False,
            "start_services": True,
            "repository": None,
            "remedy": "",
            "timeout": 1,
            **changes,
        },
        check=False,
    )


def test_pin_goes_first_then_one_transaction_then_the_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    host = StubHost({"a": "1"}, {"a"})
    result = run(host, monkeypatch)
    assert host.told == [
        "install pin=2 older=False held=True",
        "install a=2 b=2 older=False held=True",
        "hold b",
    ]
    assert result["missing"] == ["pin=2", "a=2", "b=2"]
    assert run(host, monkeypatch)["changed"] is False
    assert run(host, monkeypatch, hold=False)["holds"] == ["a", "b"]
    assert host.held == set()


def test_dnf_releases_what_it_shall_move_and_holds_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host = StubHost({"pin": "2", "a": "1", "b": "2"}, {"a", "b"})
    host.apt = False
    run(host, monkeypatch)
    assert host.told == ["release a b", "install a=2 older=False held=True", "hold a b"]


def test_held_packages_of_other_names_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    host = StubHost({"pin": "2", "a": "1", "b": "2", "old-1": "1"}, {"a", "b", "old-1", "other"})
    host.replaced = ["old-1"]
    run(host, monkeypatch, gives_way=["old-*"])
    assert host.told == ["release old-1", "install a=2 older=False held=True"]
    host.told.clear()
    run(host, monkeypatch, gives_way=["a*"])
    assert host.told == []  # nothing is missing


def test_a_refused_installation_leaves_the_holds_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    host = StubHost({"pin": "2", "a": "1", "b": "2", "old-1": "1"}, {"a", "b", "old-1"})
    host.refuses = True
    with pytest.raises(Refused):
        run(host, monkeypatch, gives_way=["old-*"])
    assert host.held == {"a", "b", "old-1"}
    assert host.ours == ["pin", "a", "b", "old-*"]


def test_what_could_have_given_way_and_did_not_is_held_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host = StubHost({"pin": "2", "a": "1", "b": "2", "old-tool": "1"}, {"a", "b", "old-tool:amd64"})
    run(host, monkeypatch, gives_way=["old-*"])
    assert host.told == ["release old-tool:amd64", "install a=2 older=False held=True", "hold old-tool:amd64"]


def test_holds_are_left_alone_unless_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    host = StubHost({"pin": "2", "a": "1", "b": "2"}, {"b"})
    result = run(host, monkeypatch, hold=None)
    assert (host.told, result["holds"]) == (["install a=2 older=False held=False"], [])


MADISON = """\
 nvidia-driver-cuda | 595.71.05-1 | file:/repo ./ Packages
 nvidia-driver-cuda | 580.126.20-1 | file:/repo ./ Packages
      nvidia-kernel | 580.126.20-1 | http://mirror x Packages
      nvidia-kernel | 580.126.20-1 | file:/repo ./ Packages
"""


def test_what_the_sources_offer() -> None:
    assert parse_madison(MADISON) == {
        "nvidia-driver-cuda": ["595.71.05-1", "580.126.20-1"],
        "nvidia-kernel": ["580.126.20-1"],
    }
    assert parse_madison("") == {}


class StubSources:
    """A host whose sources have what MADISON lists."""

    apt = True

    def __init__(self, _timeout: int, _lock: object) -> None:
        self.stale = "no way out"

    def refresh(self, ours: list[str]) -> str:
        return self.stale

    def state(self, _names: list[str]) -> tuple[dict[str, str], set[str]]:
        return {"here": "1.0-1"}, set()

    def offered(self, _names: list[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = parse_madison(MADISON)
        return found


def offered(
    monkeypatch: pytest.MonkeyPatch, *packages: str, check: bool = False, repository: str = ""
) -> dict[str, Any]:
    monkeypatch.setattr(packages_offered, "Host", StubSources)
    found: dict[str, Any] = packages_offered.look(
        {"packages": list(packages), "repository": repository, "timeout": 9}, check
    )
    return found


def test_a_version_that_the_sources_lack_is_named_with_those_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["nvidia-driver-cuda=595.71.05-*", "nvidia-kernel=595.71.05-*", "gone", "here=1.0-*"]
    found = offered(monkeypatch, *wanted, check=True)
    assert found["lacking"] == ["nvidia-kernel=595.71.05-*", "gone"]
    assert found["offered"] == {"nvidia-kernel": ["580.126.20-1"], "gone": []}


def test_an_old_index_is_told_only_where_something_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(monkeypatch, "nvidia-driver-cuda=595.71.05-*")["lacking"] == []
    with pytest.raises(Refused, match="no way out"):
        offered(monkeypatch, "gone")


def test_nothing_is_asked_of_a_repository_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(monkeypatch, "gone", repository="not-there")["asked"] is False
