"""Repositories are trusted by fingerprint only, and what an earlier installation left is named."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.openpgp import armour, dearmour, fingerprints
from ansible.module_utils.repositories import Untrusted, differing, leftovers, names_address, plain
from hypothesis import given
from hypothesis import strategies as st

KEY = Path(__file__).with_name("stubs") / "repository-key.asc"
FINGERPRINT = "92D31EAF127DE3AA34EC97384BAD15CA59EB119B"


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
