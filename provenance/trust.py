"""Who may sign: public keys, and certificate authorities of one's own. Pure; the time is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from provenance.oms import BadSignature, Bundle

Kind = TypeVar("Kind", bound=x509.ExtensionType)
# The curve of the key says which hash goes with it; the signature has no word in it, so it cannot choose a weaker one.
HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
CURVES = "P-256, P-384 or P-521"


@dataclass(frozen=True)
class Trust:
    """Public keys by their fingerprint, authorities, and the names that a certificate may have (empty: any)."""

    keys: dict[str, ec.EllipticCurvePublicKey]
    authorities: tuple[x509.Certificate, ...] = ()
    signers: tuple[str, ...] = ()


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return what OMS calls a key's hint: the SHA-256 of its PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.PEM, form)).hexdigest()


def hash_for(key: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    """Return the one signature algorithm that goes with a key. Raises BadSignature for other curves."""
    if key.curve.name not in HASHES:
        raise BadSignature(f"the key is on the curve {key.curve.name}; write one on {CURVES}")
    return ec.ECDSA(HASHES[key.curve.name]())


def load_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return a public key. Raises BadSignature."""
    if "PRIVATE KEY" in pem:
        raise BadSignature("it is a private key, which nobody but the signer may have")
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadSignature("it holds no public key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadSignature(f"it is no ECDSA key; OMS signs with ECDSA on {CURVES}")
    hash_for(key)
    return key


def load_authorities(pem: str) -> list[x509.Certificate]:
    """Return the certificates of a file, all of which must be authorities. Raises BadSignature."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise BadSignature("it holds no certificate in PEM form") from None
    for certificate in found:
        if not _is_authority(certificate):
            raise BadSignature(f"{_name(certificate)} is no certificate authority")
    return found


def verify(bundle: Bundle, trust: Trust, at: datetime | None = None) -> str:
    """Return who signed, in words; `at`: when certificates must be valid, None = now. Raises BadSignature."""
    moment = at or datetime.now(UTC)
    if bundle.certificates:
        key, signer = _key_of_chain(bundle.certificates, trust, moment)
    else:
        key, signer = _key_of_hint(bundle, trust)
    try:
        key.verify(bundle.signature, bundle.signed_bytes, hash_for(key))
    except InvalidSignature:
        raise BadSignature(f"the signature is not that of {signer} over this list of files") from None
    return signer


def _key_of_hint(bundle: Bundle, trust: Trust) -> tuple[ec.EllipticCurvePublicKey, str]:
    if not trust.keys:
        raise BadSignature("it was made with a key, and no key is trusted")
    if bundle.hint:
        if bundle.hint not in trust.keys:
            raise BadSignature(
                f"it was made with the key {bundle.hint[:16]}…, which is not among those that are trusted"
            )
        return trust.keys[bundle.hint], f"key {bundle.hint}"
    if len(trust.keys) > 1:
        raise BadSignature("it does not say which of the trusted keys made it")
    return next((key, f"key {name}") for name, key in trust.keys.items())


def _key_of_chain(chain: Sequence[bytes], trust: Trust, moment: datetime) -> tuple[ec.EllipticCurvePublicKey, str]:
    if not trust.authorities:
        raise BadSignature("it was made with a certificate, and no certificate authority is trusted")
    try:
        leaf, *others = [x509.load_der_x509_certificate(data) for data in chain]
        extensions = leaf.extensions
    except (ValueError, x509.DuplicateExtension):
        raise BadSignature("its certificates cannot be read") from None
    signer = f"certificate {_name(leaf)}"
    for certificate in (leaf, *others):
        _check_time(certificate, moment)
    if trust.signers and not set(_common_names(leaf)) & set(trust.signers):
        raise BadSignature(f"the {signer} is not among the signers that are trusted")
    _check_usage(extensions, signer)
    verifier = (
        PolicyBuilder()
        .store(Store(list(trust.authorities)))
        .time(moment)
        .extension_policies(ca_policy=_ca_policy(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, others)
    except (VerificationError, ValueError) as error:
        raise BadSignature(f"no trusted authority stands behind the {signer} ({error})") from None
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadSignature(f"the key of the {signer} is no ECDSA key")
    return key, signer


def _check_time(certificate: x509.Certificate, moment: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= moment <= end:
        said = "expired on" if moment > end else "is not valid before"
        date = end if moment > end else begin
        raise BadSignature(f"the certificate {_name(certificate)} {said} {date:%Y-%m-%d %H:%M} UTC")


def _check_usage(extensions: x509.Extensions, signer: str) -> None:
    """A certificate of a web server or a person, of the same authority, must not do."""
    usage, extended = _extension(extensions, x509.KeyUsage), _extension(extensions, x509.ExtendedKeyUsage)
    signs = usage is None or usage.digital_signature
    codes = extended is None or ExtendedKeyUsageOID.CODE_SIGNING in extended
    if not signs or not codes or (usage is None and extended is None):
        raise BadSignature(f"the {signer} is not meant for signing (key usage digitalSignature, codeSigning)")


def _extension(extensions: x509.Extensions, kind: type[Kind]) -> Kind | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _ca_policy() -> ExtensionPolicy:
    """What an issuer must be; the library sees to authority, length of the chain and name constraints."""

    def may_sign(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("an issuer may not sign certificates")

    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, may_sign)
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate.extensions, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _common_names(certificate: x509.Certificate) -> list[str]:
    return [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _name(certificate: x509.Certificate) -> str:
    return f"'{certificate.subject.rfc4514_string()}'"
