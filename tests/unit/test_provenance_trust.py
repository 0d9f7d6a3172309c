"""Who may sign a model: certificates and their authorities, and the settings that name them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance import signatures
from provenance.sign import sign
from provenance.signatures import Verdict
from tests.support.signed_models import FILES, KEY, ROOT, by, good, judge, why
from tests.support.signing import Identity, identity, key, public_pem, respelled


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
