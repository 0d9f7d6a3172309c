"""Signing a list of files on the connected side. Digests are enough: bytes that a lock proves are not read again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provenance.oms import BadSignature, Bundle, read_bundle, read_statement, statement, write_bundle
from provenance.trust import CURVES, Trust, fingerprint, hash_for, verify


def load_private_key(pem: str, passphrase: str = "") -> ec.EllipticCurvePrivateKey:
    """Return a private key. Raises BadSignature, whose text holds nothing of the key."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() if passphrase else None)
    except TypeError:
        needs = (
            "it is encrypted, and no passphrase is given"
            if not passphrase
            else "a passphrase is given for a key without"
        )
        raise BadSignature(needs) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadSignature("it is no private key in PEM form, or its passphrase is another") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadSignature(f"it is no ECDSA key; OMS signs with ECDSA on {CURVES}")
    hash_for(key.public_key())
    return key


def load_chain(pem: str, key: ec.EllipticCurvePrivateKey) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a file, the signer's first, which must be that of the key. Raises BadSignature."""
    try:
        chain = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise BadSignature("it holds no certificate in PEM form") from None
    if chain[0].public_key() != key.public_key():
        raise BadSignature("its first certificate is not that of the key; order them: signer first, then each issuer")
    return tuple(chain)


def sign(
    name: str, files: Mapping[str, str], key: ec.EllipticCurvePrivateKey, chain: tuple[x509.Certificate, ...] = ()
) -> str:
    """Return the text of the signature over these files (SHA-256 by path)."""
    payload = statement(name, files)
    hint = "" if chain else fingerprint(key.public_key())
    certificates = tuple(one.public_bytes(serialization.Encoding.DER) for one in chain)
    unsigned = Bundle(payload, b"", hint, certificates)
    signature = key.sign(unsigned.signed_bytes, hash_for(key.public_key()))
    return write_bundle(Bundle(payload, signature, hint, certificates))


def is_signed(
    text: str, files: Mapping[str, str], key: ec.EllipticCurvePrivateKey, chain: tuple[x509.Certificate, ...] = ()
) -> bool:
    """Say whether a signature file is already this key's (and certificate's) over exactly these files."""
    public = key.public_key()
    with suppress(BadSignature):
        bundle = read_bundle(text)
        if bundle.certificates != tuple(one.public_bytes(serialization.Encoding.DER) for one in chain):
            return False
        # With certificates the key is still the one to hold it against: it is theirs, which was checked.
        verify(Bundle(bundle.payload, bundle.signature, "", ()), Trust({fingerprint(public): public}))
        return dict(read_statement(bundle.payload).files) == dict(files)
    return False
