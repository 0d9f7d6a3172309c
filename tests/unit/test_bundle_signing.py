"""Whose signature counts: minisign and OpenSSL alike, other keys, ended keys, new keys, two persons."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.keys import read_keys
from ansible.module_utils.bundle.signing import Policy, sign, signers

from tests.support.bundles import Site, key_pair, site


@pytest.fixture
def built(tmp_path: Path) -> Site:
    made = site(tmp_path)
    made.build()
    return made


@pytest.fixture(params=["minisign", "openssl"])
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Only this program is on the machine."""
    real = shutil.which
    monkeypatch.setattr(
        "ansible.module_utils.bundle.signing.shutil.which", lambda name: real(name) if name == request.param else None
    )
    return str(request.param)


def test_either_tool_tells_good_from_bad(built: Site, tool: str) -> None:
    data = (built.bundle / "manifest.json").read_bytes()
    policy = Policy(read_keys([built.public]))
    assert signers(data, built.bundle, policy) == [policy.keys[0].id]
    with pytest.raises(Refusal, match="Nothing of this medium can be trusted"):
        signers(data + b" ", built.bundle, policy)
    path = next(built.bundle.glob("*.minisig"))
    good = path.read_text()
    path.write_text(good.replace("serial=1", "serial=9"))
    with pytest.raises(Refusal, match="Nothing of this medium can be trusted"):
        signers(data, built.bundle, policy)


def test_without_a_tool_nothing_is_believed(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.bundle.signing.shutil.which", lambda _: None)
    with pytest.raises(Refusal, match="neither minisign nor openssl"):
        built.bring()


def test_another_key_and_no_signature_are_refused(built: Site, tmp_path: Path) -> None:
    _, other = key_pair(tmp_path, "other")
    with pytest.raises(Refusal, match="none of yours"):
        verify(built.bundle, [other])
    next(built.bundle.glob("*.minisig")).unlink()
    with pytest.raises(Refusal, match="none at all"):
        built.bring()
    assert built.published() is None


def test_a_signature_of_another_manifest_is_refused(built: Site, tmp_path: Path) -> None:
    built.build(out=tmp_path / "again")
    path = next(built.bundle.glob("*.minisig"))
    manifest = verify(built.bundle, [built.public]).content.manifest
    sign(tmp_path / "again", dataclasses.replace(manifest, data=manifest.data + b" "), built.secret)
    shutil.copy(tmp_path / "again" / path.name, path)
    with pytest.raises(Refusal, match="Nothing of this medium can be trusted"):
        built.bring()


def test_an_ended_key_does_not_count_and_a_new_one_does(built: Site, tmp_path: Path) -> None:
    secret, public = key_pair(tmp_path, "ended", "of bank-north expires=2020-01-31")
    manifest = verify(built.bundle, [built.public]).content.manifest
    sign(built.bundle, manifest, secret)
    with pytest.raises(Refusal, match="ended on 2020-01-31"):
        verify(built.bundle, [public])
    keys = read_keys([public])
    assert signers(manifest.data, built.bundle, Policy(keys, 1, datetime.date(2020, 1, 31))) == [keys[0].id]
    assert verify(built.bundle, [public, built.public]).exit_code == 0  # rotated: both lie in the folder for a while


def test_two_persons_are_two_keys(built: Site, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="2 signatures needed, there is 1"):
        built.bring(need=2)
    copy = tmp_path / "copy.pub"
    shutil.copy(built.public, copy)
    with pytest.raises(Refusal, match="2 signatures needed"):
        verify(built.bundle, [built.public, copy], 2)
    secret, second = key_pair(tmp_path, "second")
    sign(built.bundle, verify(built.bundle, [built.public]).content.manifest, secret)
    report = verify(built.bundle, [built.public, second], 2)
    assert len(report.content.signers) == 2
    assert report.faults == []


def test_a_secret_key_in_the_bundle_is_refused(built: Site) -> None:
    secret = built.bundle / "operator.key"
    shutil.copy(built.secret, secret)
    manifest = verify(built.bundle, [built.public]).content.manifest
    with pytest.raises(Refusal, match="must not lie in the bundle"):
        sign(built.bundle, manifest, secret)
    assert [fault.path for fault in verify(built.bundle, [built.public]).faults] == ["operator.key"]


@pytest.mark.parametrize("text", ["", "hello", "untrusted comment: x\nAAAA\n", "RWQ" + "A" * 20])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.pub"
    path.write_text(text)
    with pytest.raises(Refusal, match="is not a public key"):
        read_keys([path])
    with pytest.raises(Refusal, match="nobody's signature"):
        read_keys([])


def test_a_key_may_be_written_out(built: Site) -> None:
    text = built.public.read_text().splitlines()[1]
    assert verify(built.bundle, [text]).exit_code == 0
