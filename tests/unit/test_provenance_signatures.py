"""Signatures of models: what is believed, what is refused and why; each refusal with the fault it guards against."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.artifacts import locking
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from provenance import signatures
from provenance.oms import BadSignature, read_bundle, read_statement
from provenance.signatures import Verdict
from tests.support.plan_documents import digest
from tests.support.signed_models import FILE, FILES, KEY, ROOT, by, good, judge, why
from tests.support.signing import flipped, identity, key, public_pem, resigned, respelled, signed_payload


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
