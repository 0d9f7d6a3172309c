"""What a host's packages.json lets it install: the file, names, transactions, sums; and package_set under it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import package_lock
from ansible.module_utils.package_tools import Refused, fits

from library import package_set
from tests.unit.test_package_set import StubHost

ROW = {"version": "1", "architecture": "all", "sha256": "a" * 64}
DOCUMENT = {
    "mode": "strict",
    "platform": "debian-13-amd64",
    "lock_digest": "sha256:0",
    "sources": "",
    "packages": {"engine": ROW, "libs": {**ROW, "version": "2:3-1"}},
}


def lock(**changes: Any) -> package_lock.PackageLock:
    given: dict[str, Any] = {
        "platform": "debian-13-amd64",
        "digest": "",
        "sources": "",
        "packages": DOCUMENT["packages"],
    }
    return package_lock.PackageLock(**{**given, **changes})


@pytest.fixture
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "packages.json"
    monkeypatch.setattr(package_lock, "PATH", str(path))
    return path


def test_a_host_without_the_file_may_install_anything(_file: Path) -> None:
    assert package_lock.read() is None
    _file.write_text(json.dumps({**DOCUMENT, "mode": "open"}))
    assert package_lock.read() is None
    _file.write_text(json.dumps({**DOCUMENT, "mode": "open", "sources": "/x.sources"}))
    opened = package_lock.read()
    assert opened
    assert not opened.strict
    assert not any("preferences" in option for option in opened.options())


def test_the_file(_file: Path) -> None:
    _file.write_text(json.dumps(DOCUMENT))
    assert package_lock.read() == lock(digest="sha256:0")
    _file.write_text(json.dumps({**DOCUMENT, "downgrade": "yes"}))  # a word is no true
    found = package_lock.read()
    assert found
    assert found.downgrade is False


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", json.dumps({**DOCUMENT, "mode": "STRICT"}), json.dumps({**DOCUMENT, "packages": ["engine"]})]
    + [json.dumps({key: value for key, value in DOCUMENT.items() if key != left}) for left in DOCUMENT],
)
def test_a_file_that_cannot_be_used_is_never_an_open_door(_file: Path, text: str) -> None:
    _file.write_text(text)
    with pytest.raises(package_lock.Broken, match=r"packages\.json"):
        package_lock.read()


def test_names_become_locked_versions() -> None:
    assert lock().wanted(["engine", "libs=2:3-*"], fits) == (["engine=1", "libs=2:3-1"], "")
    none, problem = lock().wanted(["a", "engine=2", "b=1"], fits)
    assert none == []
    assert "not in the lock: a, b=1;" in problem
    assert "engine=2 (locked: 1)" in problem


REHEARSAL = """\
Inst libs [2:2-1] (2:3-1 stub:1/x, Other:2/y [all])
Inst engine:amd64 (1 stub [all]) []
Conf libs (2:3-1 stub [all])
"""


def test_a_transaction_of_the_lock_passes() -> None:
    assert lock().strangers(REHEARSAL) == ""
    assert lock().coming(REHEARSAL) == ["libs=2:3-1", "engine=1"]


def test_strangers_in_a_transaction_are_all_named() -> None:
    found = lock().strangers(
        REHEARSAL.replace("engine:amd64 (1", "engine (7") + "Inst more (1 x [all])\nInst other (2 x)\n"
    )
    assert "not in the lock: more=1, other=2;" in found
    assert "engine=7 (locked: 1)" in found


def test_sums_of_the_index() -> None:
    good = f"Package: engine\nVersion: 1\nSHA256: {'a' * 64}\n\nPackage: libs\nVersion: 2:9\nSHA256: {'0' * 64}\n"
    assert lock().forged(good) == ""  # another version of libs is not what is installed
    assert "engine 1 has the sum bbbb" in lock().forged(good.replace("a" * 64, "b" * 64))
    assert "engine 1 has the sum none" in lock().forged(good.replace("SHA256", "MD5sum"))
    both = good + f"\nPackage: engine\nVersion: 1\nSHA256: {'c' * 64}\n"  # two repositories that do not agree
    assert "engine 1 has the sum cccc" in lock().forged(both)


def test_preferences_forbid_what_is_not_listed() -> None:
    text = lock().preferences()
    assert text.startswith("Package: *\nPin: release *\nPin-Priority: -1\n\nPackage: engine\nPin: version 1\n")
    assert "Package: *" not in lock().preferences(strict=False)


class StubLockedHost(StubHost):
    """A host on which nothing that is installed is newer than the lock, unless it is said to be."""

    ahead: tuple[str, ...] = ()

    def newer(self, pairs: list[tuple[str, str, str]]) -> list[str]:
        return [f"{name} {now}" for name, now, _ in pairs if name in self.ahead]


def run(host: StubHost, monkeypatch: pytest.MonkeyPatch, file: Path, **changes: Any) -> dict[str, Any]:
    file.write_text(json.dumps({**DOCUMENT, **changes.pop("document", {})}))
    monkeypatch.setattr(package_set, "Host", lambda *_: host)
    defaults: dict[str, Any] = {"first": [], "packages": ["engine"], "conflicts": [], "hold": None, "downgrade": False}
    defaults |= {"gives_way": [], "stream": "", "repository": None, "remedy": "", "timeout": 1}
    defaults |= {"installed_too": False, "start_services": True}
    return package_set.apply({**defaults, **changes}, check=False)


def test_installed_too_raises_what_is_behind_and_not_held(monkeypatch: pytest.MonkeyPatch, _file: Path) -> None:
    rows = {"engine": ROW, "libs": ROW, "kept": ROW, "ahead": ROW, "absent": ROW}
    host = StubLockedHost({"engine": "1", "libs": "0", "kept": "0", "ahead": "5", "other": "9"}, {"kept"})
    host.ahead = ("ahead",)
    result = run(host, monkeypatch, _file, document={"packages": rows}, installed_too=True)
    assert host.told == ["install libs=1 older=False held=False"]
    assert result["missing"] == ["libs=1"]
    assert run(host, monkeypatch, _file, document={"packages": rows}, installed_too=True)["changed"] is False


def test_a_newer_package_goes_back_only_where_the_host_may(monkeypatch: pytest.MonkeyPatch, _file: Path) -> None:
    host = StubLockedHost({"engine": "2"}, set())
    host.ahead = ("engine",)
    with pytest.raises(Refused, match=r"newer on this host than in the lock: engine 2 \(locked: 1\)"):
        run(host, monkeypatch, _file)
    assert host.told == []
    run(host, monkeypatch, _file, document={"downgrade": True})
    assert host.told == ["install engine=1 older=True held=False"]


def test_no_repository_is_added_where_one_source_is_all(monkeypatch: pytest.MonkeyPatch, _file: Path) -> None:
    host = StubLockedHost({"engine": "1"}, set())
    for mode in ("open", "strict"):
        document = {"mode": mode, "sources": "/x.sources"}
        assert run(host, monkeypatch, _file, document=document, repository={"name": "no"})["changed"] is False
