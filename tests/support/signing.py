"""Keys, certificates and signatures for tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provenance.oms import Bundle, read_bundle, write_bundle
from provenance.trust import fingerprint, hash_for

PEM = serialization.Encoding.PEM


def key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """Return a new key, on P-256 unless told otherwise."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def private_pem(private: ec.EllipticCurvePrivateKey, passphrase: str = "") -> str:
    """Return the key's PEM, encrypted if there is a passphrase."""
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase.encode())
    return private.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock).decode()


def public_pem(private: ec.EllipticCurvePrivateKey) -> str:
    """Return the public half's PEM."""
    return private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate's PEM."""
        return self.certificate.public_bytes(PEM).decode()


def identity(
    name: str,
    issuer: Identity | None = None,
    *,
    ca: bool = False,
    usage: bool | None = True,
    extended: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    begin: int = -1,
    end: int = 30,
    length: int | None = None,
) -> Identity:
    """Return a certificate, valid from `begin` to `end` days from now; without an issuer it is its own.

    usage: may it sign (None: it does not say); extended: for what; length: authorities that may stand below it.
    """
    own, now = key(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begin))
        .not_valid_after(now + timedelta(days=end))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=length), critical=True)
    )
    if usage is not None:
        rights = dict.fromkeys(
            ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
        )
        rights |= {"digital_signature": usage and not ca, "key_encipherment": not usage}
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=ca and usage, crl_sign=ca, **rights), critical=True)
    if extended and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    signed = builder.sign(issuer.key if issuer else own, hashes.SHA256())
    return Identity(signed, own)


def respelled(text: str, change: Callable[[dict[str, Any]], None]) -> str:
    """Return a signature file with something changed in its JSON."""
    document = json.loads(text)
    change(document)
    return json.dumps(document)


def resigned(text: str, private: ec.EllipticCurvePrivateKey, change: Callable[[dict[str, Any]], None]) -> str:
    """Return a signature file whose payload was changed, then signed well by this key."""
    payload = json.loads(read_bundle(text).payload)
    change(payload)
    return signed_payload(json.dumps(payload).encode(), private)


def signed_payload(payload: bytes, private: ec.EllipticCurvePrivateKey) -> str:
    """Return a signature file over any bytes."""
    hint = fingerprint(private.public_key())
    unsigned = Bundle(payload, b"", hint, ())
    signature = private.sign(unsigned.signed_bytes, hash_for(private.public_key()))
    return write_bundle(Bundle(payload, signature, hint, ()))


def flipped(text: str, *path: str | int) -> str:
    """Return a signature file with one bit turned in the base64 value at a place of its JSON."""

    def turn(document: Any) -> None:
        *way, last = path
        for step in way:
            document = document[step]
        data = bytearray(base64.b64decode(document[last]))
        data[len(data) // 2] ^= 1
        document[last] = base64.b64encode(data).decode()

    return respelled(text, turn)
