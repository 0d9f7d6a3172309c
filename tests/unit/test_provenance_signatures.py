"""Signatures of models: what is believed, what is refused and why; each refusal with the fault it guards against."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import locking
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from provenance import signatures
from provenance.oms import BadSignature, read_bundle, read_statement
from provenance.sign import sign
from provenance.signatures import Verdict
from tests.support.plan_documents import REVISION, digest
from tests.support.signing import (
    Identity,
    flipped,
    identity,
    key,
    public_pem,
    resigned,
    respelled,
    signed_payload,
)

FILES = {path: digest(path) for path in ("config.json", "model.safetensors", "sub/a.txt")}
KEY = key()
ROOT = identity("Model CA", ca=True)
FILE = "/signatures/tiny.sig"


def lock(files: dict[str, str]) -> dict[str, Any]:
    return {"revision": REVISION, "files": [{"path": path, "size": 1, "sha256": files[path]} for path in files]}


def judge(
    text: str | None,
    files: dict[str, str] | None = None,
    *,
    now: datetime | None = None,
    own: dict[str, Any] | None = None,
    **settings: Any,
) -> Verdict:
    """Judge one model with this signature (None: no file); KEY is trusted unless the settings say otherwise."""

    def read(given: str) -> str:
        if "-----BEGIN" in given:
            return given
        if given != FILE or text is None:
            raise FileNotFoundError(given)
        return text

    trusted = {} if "authorities" in settings else {"keys": [public_pem(KEY)]}
    values = {
        "redoubt_models": [{"name": "tiny"} | ({"signature": own} if own else {})],
        "redoubt_model_locks": {"tiny": lock(files or FILES)},
        "redoubt_model_signatures": {"policy": "require"} | trusted | settings,
    }
    return signatures.judge(values, "/signatures", read, now)


def why(verdict: Verdict) -> str:
    """Return the reason of a refusal, of which there must be one, with a place and a way out."""
    (problem,) = verdict.problems
    assert problem.where
    assert problem.fix
    assert not verdict.signers
    return problem.why


def good(private: ec.EllipticCurvePrivateKey = KEY, files: dict[str, str] | None = None) -> str:
    return sign("tiny", files or FILES, private)


def by(*chain: Identity, files: dict[str, str] | None = None) -> str:
    return sign("tiny", files or FILES, chain[0].key, tuple(one.certificate for one in chain))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_good_signature_is_believed(curve: ec.EllipticCurve) -> None:
    private = key(curve)
    found = judge(good(private), keys=[public_pem(KEY), public_pem(private)])
    assert found.problems == []
    assert found.warnings == []
    assert found.signers["tiny"].startswith("key ")


def test_a_wrong_key_is_refused() -> None:
    assert "not among those that are trusted" in why(judge(good(key())))


def test_a_hint_that_lies_is_refused() -> None:
    def lie(document: dict[str, Any]) -> None:
        document["verificationMaterial"] = json.loads(good())["verificationMaterial"]

    assert "the signature is not that of key" in why(judge(respelled(good(key()), lie)))


def test_a_signature_of_another_curve_is_refused() -> None:
    def lie(document: dict[str, Any]) -> None:
        document["verificationMaterial"] = json.loads(good())["verificationMaterial"]

    text = respelled(good(key(ec.SECP384R1())), lie)
    assert "the signature is not that of key" in why(judge(text))


def test_without_a_hint_the_only_key_counts_and_several_are_refused() -> None:
    def forget(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["publicKey"] = {}

    text = respelled(good(), forget)
    assert judge(text).problems == []
    assert "which of the trusted keys" in why(judge(text, keys=[public_pem(KEY), public_pem(key())]))


@pytest.mark.parametrize("place", [("payload",), ("signatures", 0, "sig")])
def test_one_bit_is_seen(place: tuple[str | int, ...]) -> None:
    assert "the signature is not that of key" in why(judge(flipped(good(), "dsseEnvelope", *place)))


def test_an_unsigned_model_is_refused_warned_of_or_let_be() -> None:
    assert "not signed" in why(judge(None))
    warned = judge(None, policy="warn")
    assert warned.problems == []
    assert "not signed" in warned.warnings[0]
    assert FILE in warned.warnings[0]
    assert judge(None, policy="ignore") == Verdict()
    assert judge(None, own={"policy": "ignore"}) == Verdict()
    assert "not signed" in why(judge(None, policy="ignore", own={"policy": "require"}))


@pytest.mark.parametrize("settings", [{"policy": None}, {"own": {"policy": None}}, {"own": {"file": FILE}}])
def test_who_forgets_the_policy_gets_the_strict_one(settings: dict[str, Any]) -> None:
    assert "not signed" in why(judge(None, **settings))


def test_a_bad_signature_is_only_warned_of_where_the_policy_says_so() -> None:
    warned = judge(good(key()), policy="warn")
    assert warned.problems == []
    assert warned.signers == {}
    assert "not among those" in warned.warnings[0]


def test_the_signature_of_another_model_is_refused() -> None:
    other = {path: digest(f"other {path}") for path in FILES}
    assert "other bytes were signed for config.json" in why(judge(good(files=other)))


def test_one_other_digest_is_refused() -> None:
    reason = why(judge(good(), FILES | {"sub/a.txt": digest("evil")}))
    assert reason.endswith("other bytes were signed for sub/a.txt")


def test_a_file_that_nobody_signed_is_refused_whatever_its_name() -> None:
    assert "not signed: README.md" in why(judge(good(), FILES | {"README.md": digest("x")}))


def test_a_signed_file_may_lack_in_the_lock_only_as_the_settings_say() -> None:
    signed = good(files=FILES | {"README.md": digest("r"), "pytorch_model.bin": digest("b")})
    assert judge(signed).problems == []
    assert "README.md, pytorch_model.bin" in why(judge(signed, left_out=[]))
    assert "signed, but not in the lock: pytorch_model.bin" in why(judge(signed, left_out=["*.md"]))
    less = {path: FILES[path] for path in FILES if path != "config.json"}
    assert "signed, but not in the lock: config.json" in why(judge(good(), less))


def test_what_may_lack_is_what_the_lock_leaves_out() -> None:
    assert sorted(signatures.LEFT_OUT) == sorted(locking.LEFT_OUT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (good() + "{}", "not JSON"),
        (good().rstrip() + "\x00", "not JSON"),
        (good().replace('"mediaType"', '"mediaType":"x","mediaType"', 1), "'mediaType' twice"),
        (good().replace('"keyid":""', '"keyid":"","sig":"AAAA"'), "'sig' twice"),
        ("[" * 100000, "not JSON"),
        ("[]", "not a JSON object"),
        (good().replace("v0.3+json", "v0.2+json"), "mediaType"),
        (good().replace("vnd.in-toto+json", "json"), "payloadType"),
        (good().replace('"keyid":""', '"keyid":NaN'), "NaN"),
    ],
)
def test_a_file_that_can_be_read_in_two_ways_is_refused(text: str, reason: str) -> None:
    assert reason in why(judge(text))


def test_two_signatures_or_none_are_refused() -> None:
    for count in (0, 2):
        text = respelled(good(), lambda document: document["dsseEnvelope"].update(
            signatures=document["dsseEnvelope"]["signatures"] * count  # noqa: B023 - used at once
        ))  # fmt: skip
        assert "exactly one signature" in why(judge(text))


def test_a_key_and_a_certificate_at_once_are_refused() -> None:
    leaf = identity("Signer", ROOT)

    def both(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["publicKey"] = {"hint": "x"}

    assert "one key or one certificate chain" in why(judge(respelled(by(leaf), both), authorities=[ROOT.pem]))


def test_a_keyless_signature_is_told_apart() -> None:
    text = respelled(good(), lambda document: document.update(verificationMaterial={"certificate": {"rawBytes": "AA"}}))
    assert "without a network" in why(judge(text))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p.update(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (lambda p: p.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (lambda p: p["predicate"]["serialization"].update(method="shards"), "lists shards"),
        (lambda p: p["predicate"]["serialization"].update(hash_type="blake3"), "by blake3"),
        (lambda p: p["predicate"]["resources"][0].update(algorithm="sha1"), "no SHA-256"),
        (lambda p: p["predicate"]["resources"][0].update(digest="00"), "no SHA-256"),
        (lambda p: p["predicate"]["resources"][0].update(name="a\nb"), "path that cannot be one"),
        (lambda p: p["predicate"]["resources"].append(p["predicate"]["resources"][0]), "twice"),
        (lambda p: p["predicate"]["resources"].reverse(), "digest of the whole model"),
        (lambda p: p["subject"].append(p["subject"][0]), "exactly one model"),
        (lambda p: p["predicate"].update(resources=[]), "lists no files"),
    ],
)
def test_a_well_signed_payload_that_says_something_else_is_refused(change: Any, reason: str) -> None:
    assert reason in why(judge(resigned(good(), KEY, change)))


def test_a_well_signed_payload_with_a_key_twice_is_refused() -> None:
    payload = read_bundle(good()).payload.replace(b'"resources":', b'"resources":[],"resources":')
    assert "'resources' twice" in why(judge(signed_payload(payload, KEY)))


@given(st.binary(max_size=40), st.text(max_size=40))
def test_no_bytes_break_the_readers(data: bytes, text: str) -> None:
    for read in (lambda: read_bundle(text), lambda: read_statement(data)):
        with pytest.raises(BadSignature):
            read()


# Certificates


def test_a_certificate_of_the_authority_is_believed_also_through_another() -> None:
    middle = identity("Issuing CA", ROOT, ca=True)
    for chain in ((identity("Signer", ROOT),), (identity("Signer", middle), middle)):
        found = judge(by(*chain), authorities=[ROOT.pem])
        assert found.problems == []
        assert found.signers["tiny"] == "certificate 'CN=Signer'"


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ((identity("Signer", identity("Model CA", ca=True)),), "no trusted authority"),
        ((identity("Signer"),), "no trusted authority"),
        ((identity("Signer", ROOT, begin=-9, end=-1),), "'CN=Signer' expired on"),
        ((identity("Signer", ROOT, begin=1),), "'CN=Signer' is not valid before"),
        ((identity("Signer", ROOT, extended=(ExtendedKeyUsageOID.SERVER_AUTH,)),), "not meant for signing"),
        ((identity("Signer", ROOT, usage=False),), "not meant for signing"),
        ((identity("Signer", ROOT, usage=None, extended=()),), "not meant for signing"),
        ((identity("Signer", door := identity("Door", ROOT)), door), "no trusted authority"),
        ((identity("Signer", mute := identity("Mute", ROOT, usage=None, extended=())), mute), "no trusted authority"),
        ((identity("Signer", half := identity("Half CA", ROOT, ca=True, usage=False)), half), "no trusted authority"),
        ((identity("Signer", old := identity("Old CA", ROOT, ca=True, begin=-9, end=-1)), old), "'CN=Old CA' expired"),
        ((identity("Signer", identity("Missing CA", ROOT, ca=True)),), "no trusted authority"),
    ],
)
def test_other_certificates_are_refused(chain: tuple[Identity, ...], reason: str) -> None:
    assert reason in why(judge(by(*chain), authorities=[ROOT.pem]))


def test_a_chain_that_is_longer_than_its_authority_allows_is_refused() -> None:
    root = identity("Short CA", ca=True, length=0)
    middle = identity("Issuing CA", root, ca=True)
    assert "no trusted authority" in why(judge(by(identity("Signer", middle), middle), authorities=[root.pem]))


def test_only_the_named_signers_may_sign() -> None:
    text = by(identity("Release", ROOT))
    assert judge(text, authorities=[ROOT.pem], signers=["Release"]).problems == []
    assert "not among the signers" in why(judge(text, authorities=[ROOT.pem], signers=["Other"]))


def test_an_expired_certificate_counts_for_the_day_that_the_operator_vouches_for() -> None:
    now = datetime.now(UTC)
    text = by(identity("Signer", ROOT, begin=-1, end=3))
    later = now + timedelta(days=20)
    refused = judge(text, authorities=[ROOT.pem], now=later)
    assert "expired on" in why(refused)
    assert "valid_at" in refused.problems[0].fix
    day = f"{now:%Y-%m-%d}"
    assert judge(text, authorities=[ROOT.pem], now=later, own={"valid_at": day}).problems == []
    assert "not a day" in why(judge(text, authorities=[ROOT.pem], own={"valid_at": "soon"}))


def test_an_expired_authority_counts_on_the_day_that_the_operator_vouches_for_and_not_now() -> None:
    root = identity("Old CA", ca=True, begin=-9, end=-2)
    text = by(identity("Signer", root, begin=-9, end=-2))
    day = f"{datetime.now(UTC) - timedelta(days=5):%Y-%m-%d}"
    assert judge(text, authorities=[root.pem], own={"valid_at": day}).problems == []
    still = by(identity("Signer", root, begin=-9, end=9))
    assert "no trusted authority" in why(judge(still, authorities=[root.pem]))


def test_the_key_in_a_certificate_must_have_signed() -> None:
    mine, other = identity("Signer", ROOT), identity("Signer", ROOT)
    text = sign("tiny", FILES, mine.key, (other.certificate,))
    assert "the signature is not that of certificate" in why(judge(text, authorities=[ROOT.pem]))


def test_a_certificate_does_not_stand_in_for_a_key_nor_a_key_for_a_certificate() -> None:
    assert "no certificate authority is trusted" in why(judge(by(identity("Signer", ROOT))))
    assert "no key is trusted" in why(judge(good(), authorities=[ROOT.pem]))


# Settings


def test_bad_settings_are_told_all_at_once() -> None:
    strange = rsa.generate_private_key(65537, 2048).public_key()
    rsa_pem = strange.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    koblitz = public_pem(key(ec.SECP256K1()))
    leaf = identity("Signer", ROOT)
    found = judge(good(), keys=["/missing.pub", rsa_pem, koblitz, "-----BEGIN"], authorities=[leaf.pem])
    said = {problem.where: problem.why for problem in found.problems}
    assert set(said) == {
        *(f"redoubt_model_signatures.keys[{index}]" for index in range(4)),
        "redoubt_model_signatures.authorities[0]",
    }
    assert "cannot be read" in said["redoubt_model_signatures.keys[0]"]
    assert "no ECDSA key" in said["redoubt_model_signatures.keys[1]"]
    assert "secp256k1" in said["redoubt_model_signatures.keys[2]"]
    assert "no certificate authority" in said["redoubt_model_signatures.authorities[0]"]


def test_a_private_key_in_the_place_of_a_public_one_is_refused_and_not_shown() -> None:
    found = judge(good(), keys=["-----BEGIN PRIVATE KEY-----\nMIGH-secret"])
    (problem,) = found.problems
    assert "private key" in problem.why
    assert "secret" not in problem.text()


def test_nobody_trusted_is_refused() -> None:
    assert "nobody is trusted" in why(judge(good(), keys=[]))


def test_a_lock_that_is_refused_elsewhere_is_not_judged(tmp_path: Path) -> None:
    values = {
        "redoubt_models": [{"name": "tiny"}, "x"],
        "redoubt_model_locks": {"tiny": {"files": "many"}},
        "redoubt_model_signatures": {"policy": "require", "keys": [public_pem(KEY)]},
    }
    assert signatures.judge(values, str(tmp_path), lambda given: given) == Verdict()


def test_a_certificate_that_is_no_certificate_is_refused() -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["verificationMaterial"]["x509CertificateChain"]["certificates"] = [{"rawBytes": "AAAA"}]

    text = respelled(by(identity("Signer", ROOT)), spoil)
    assert "certificates cannot be read" in why(judge(text, authorities=[ROOT.pem]))
    assert isinstance(ROOT.certificate, x509.Certificate)
