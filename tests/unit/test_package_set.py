"""Package databases read, and repositories trusted by fingerprint only."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.openpgp import armour, dearmour, fingerprints
from ansible.module_utils.package_tools import (
    Refused,
    missing,
    parse_dpkg,
    parse_dpkg_holds,
    parse_madison,
    parse_rpm,
    parse_version_locks,
    stream_enabled,
)
from ansible.module_utils.repositories import Untrusted, differing, leftovers, names_address, plain
from hypothesis import given
from hypothesis import strategies as st

from library import package_set, packages_offered

KEY = Path(__file__).with_name("stubs") / "repository-key.asc"
FINGERPRINT = "92D31EAF127DE3AA34EC97384BAD15CA59EB119B"


def test_dpkg_states() -> None:
    output = (
        "nginx\tinstall ok installed\t1.26\n"
        "held\thold ok installed\t2\n"
        "gone\tdeinstall ok config-files\t3\n"
        "half\tinstall reinstreq half-installed\t4\n"
    )
    assert parse_dpkg(output) == {"nginx": "1.26", "held": "2"}
    assert parse_dpkg_holds(output) == {"held"}


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
    assert parse_rpm("nginx\t1.26-1.el9\npackage curl is not installed\n") == {"nginx": "1.26-1.el9"}


def test_missing_names_and_versions() -> None:
    assert missing(["a", "b=2", "c=3", "d"], {"a": "1", "b": "2", "c": "4"}) == ["c=3", "d"]
    assert missing(["a=580.9-*", "b=580.9-*"], {"a": "580.95-1", "b": "580.9-1ubuntu1"}) == ["a=580.9-*"]


def test_fingerprint_is_the_one_that_gnupg_says() -> None:
    assert fingerprints(KEY.read_bytes()) == [FINGERPRINT]
    assert fingerprints(dearmour(KEY.read_bytes())) == [FINGERPRINT]
    assert fingerprints(armour(dearmour(KEY.read_bytes()))) == [FINGERPRINT]


def test_old_packet_format_with_each_length() -> None:
    body = b"\x04" + b"x" * 300
    framed = b"\x99" + len(body).to_bytes(2, "big") + body
    wanted = hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()
    assert fingerprints(b"\x99" + len(body).to_bytes(2, "big") + body) == [wanted]
    assert fingerprints(b"\x9a" + len(body).to_bytes(4, "big") + body) == [wanted]


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"\x99\xff\xffshort", b"\xc6\x06\x03aaaaa", b"-----BEGIN X\n\n*\n-----END X\n"]
)
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        fingerprints(data)


@given(st.binary(max_size=60))
def test_rubbish_never_breaks_the_parser(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        fingerprints(data)


def repository(**changes: Any) -> dict[str, Any]:
    return {
        "name": "redoubt-unit-test",
        "url": "https://packages.example.org/linux",
        "suite": "trixie",
        "components": ["stable"],
        "key": "",
        "key_url": KEY.as_uri(),
        "key_fingerprints": [FINGERPRINT],
        "leftovers": [],
        "remove_leftovers": False,
        **changes,
    }


def test_repository_with_the_right_key() -> None:
    files = differing(repository(), apt=True, check=False)
    source = files["/etc/apt/sources.list.d/redoubt-unit-test.sources"]
    assert source is not None
    assert b"Signed-By: /etc/apt/keyrings/redoubt-unit-test.asc" in source
    assert files["/etc/apt/keyrings/redoubt-unit-test.asc"] == KEY.read_bytes()
    dnf = differing(repository(key=KEY.read_text(), key_url=""), apt=False, check=False)
    assert b"gpgcheck=1" in (dnf["/etc/yum.repos.d/redoubt-unit-test.repo"] or b"")


def test_binary_key_is_armoured(tmp_path: Path) -> None:
    binary = tmp_path / "key.gpg"
    binary.write_bytes(dearmour(KEY.read_bytes()))
    files = differing(repository(key_url=binary.as_uri()), apt=True, check=False)
    key = files["/etc/apt/keyrings/redoubt-unit-test.asc"]
    assert key is not None
    assert key.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert fingerprints(key) == [FINGERPRINT]


def test_stranger_beside_the_right_key_is_refused(tmp_path: Path) -> None:
    stranger = b"\xc6\x05\x04aaaa"
    both = tmp_path / "both.gpg"
    both.write_bytes(dearmour(KEY.read_bytes()) + stranger)
    with pytest.raises(Untrusted, match="Nothing was changed"):
        differing(repository(key_url=both.as_uri()), apt=True, check=False)
    text = base64.b64encode(both.read_bytes()).decode()
    armoured = f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{text}\n-----END PGP PUBLIC KEY BLOCK-----"
    with pytest.raises(Untrusted, match="has the fingerprint"):
        differing(repository(key=armoured), apt=True, check=False)


def test_other_fingerprint_is_refused_with_both_named() -> None:
    with pytest.raises(Untrusted, match=f"{FINGERPRINT}, expected {'A' * 40}"):
        differing(repository(key_fingerprints=["A" * 40]), apt=True, check=False)


@pytest.mark.parametrize("text", ["0EBFCD88", "", "zz" * 20])
def test_short_fingerprints_are_refused(text: str) -> None:
    with pytest.raises(Untrusted, match="no full key fingerprint"):
        plain(text)


def test_key_that_cannot_be_fetched_is_said_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match="Give the key itself"):
        differing(repository(key_url=(tmp_path / "none").as_uri()), apt=True, check=False)
    with pytest.raises(Untrusted, match="must begin with"):
        differing(repository(key_url="ftp://x/y"), apt=True, check=False)


def test_check_mode_fetches_nothing(tmp_path: Path) -> None:
    files = differing(repository(key_url=(tmp_path / "none").as_uri()), apt=True, check=True)
    assert files["/etc/apt/keyrings/redoubt-unit-test.asc"] is None


def test_flat_repository_has_no_components() -> None:
    source = differing(repository(suite="/"), apt=True, check=True)["/etc/apt/sources.list.d/redoubt-unit-test.sources"]
    assert source is not None
    assert b"Suites: /\n" in source
    assert b"Components" not in source


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("deb [signed-by=/k] https://x.org/linux/ /", True),
        ("URIs: https://x.org/linux", True),
        ("baseurl=https://x.org/linux", True),
        ("# deb https://x.org/linux /", False),
        ("deb https://x.org/linux2 /", False),
    ],
)
def test_source_at_the_same_address(line: str, named: bool) -> None:
    assert names_address(f"{line}\n", "https://x.org/linux/") is named


def test_leftover_source_is_refused_or_given_for_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, stranger = tmp_path / "nvidia-docker.list", tmp_path / "same-address.list"
    old.write_text("deb https://elsewhere.org /\n")
    stranger.write_text(f"deb {repository()['url']}/ stable main\n")
    monkeypatch.setattr(sys.modules[leftovers.__module__], "APT_SOURCES", (str(tmp_path / "*.list"),))
    given = repository(leftovers=[str(tmp_path / "nvidia-*.list")])
    with pytest.raises(Untrusted, match=f"{old}, {stranger}: left by an earlier"):
        leftovers(given, apt=True)
    assert leftovers({**given, "remove_leftovers": True}, apt=True) == [str(old), str(stranger)]
    old.unlink()
    stranger.unlink()
    assert leftovers(given, apt=True) == []


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
    monkeypatch.setattr(package_set, "Host", lambda _: host)
    params = {"first": ["pin=2"], "packages": ["a=2", "b=2"], "conflicts": [], "hold": True, "downgrade": False}
    return package_set.apply(
        {**params, "gives_way": [], "stream": "", "repository": None, "remedy": "", "timeout": 1, **changes},
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

    def __init__(self, _timeout: int) -> None:
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
