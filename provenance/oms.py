"""The OpenSSF model-signing (OMS) format, read strictly: a Sigstore bundle with a DSSE envelope with a list of files.

Nothing here is believed until `provenance.trust` has verified the signature; this module only says what is written.
What two readers could understand differently (a key twice, bytes behind the end, two materials) is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
LARGEST = 64 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadSignature(ValueError):
    """Why a signature is not believed, in words for an operator."""


@dataclass(frozen=True)
class Bundle:
    """What a signature file holds: the signed bytes, the signature, and either a key's hint or certificates (DER)."""

    payload: bytes
    signature: bytes
    hint: str
    certificates: tuple[bytes, ...]

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that the signature is over (DSSE v1)."""
        return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(self.payload), self.payload)


@dataclass(frozen=True)
class Statement:
    """What was signed: SHA-256 by path; `name` is only a name, `digest` stands for the whole list."""

    name: str
    digest: str
    files: Mapping[str, str]


def read_bundle(text: str) -> Bundle:
    """Return what a signature file holds. Raises BadSignature."""
    raw = _strict(text, "the file")
    if raw.get("mediaType") != MEDIA_TYPE:
        raise BadSignature(f"its mediaType is {raw.get('mediaType')!r}, not {MEDIA_TYPE}")
    envelope = _mapping(raw, "dsseEnvelope")
    if envelope.get("payloadType") != PAYLOAD_TYPE:
        raise BadSignature(f"its payloadType is {envelope.get('payloadType')!r}, not {PAYLOAD_TYPE}")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise BadSignature("it does not hold exactly one signature")
    hint, certificates = _material(_mapping(raw, "verificationMaterial"))
    return Bundle(_bytes(envelope, "payload"), _bytes(signatures[0], "sig"), hint, certificates)


def read_statement(payload: bytes) -> Statement:
    """Return the list of files in a payload; check the signature over it first. Raises BadSignature."""
    try:
        raw = _strict(payload.decode(), "the payload")
    except UnicodeDecodeError:
        raise BadSignature("the payload is not UTF-8") from None
    for key, wanted in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if raw.get(key) != wanted:
            raise BadSignature(f"the payload's {key} is {raw.get(key)!r}, not {wanted}")
    subjects = raw.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise BadSignature("the payload does not speak of exactly one model")
    predicate = _mapping(raw, "predicate")
    form = _mapping(predicate, "serialization")
    if (form.get("method"), form.get("hash_type")) != ("files", "sha256"):
        raise BadSignature(
            f"it lists {form.get('method')} by {form.get('hash_type')}; only files by sha256 can be held against a lock"
        )
    files = _files(predicate.get("resources"))
    digest = _mapping(subjects[0], "digest").get("sha256")
    if digest != _root(files.values()):
        raise BadSignature("the payload's digest of the whole model is not that of its files")
    return Statement(str(subjects[0].get("name") or ""), str(digest), files)


def statement(name: str, files: Mapping[str, str]) -> bytes:
    """Return the payload that says these files (SHA-256 by path) are the model `name`, in OMS's order."""
    ordered = sorted(files, key=PurePosixPath)
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root_digest(files)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": path, "algorithm": "sha256", "digest": files[path]} for path in ordered],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def root_digest(files: Mapping[str, str]) -> str:
    """Return the one digest that OMS gives to a model: over the digests of its files, in the order of their paths."""
    return _root(files[path] for path in sorted(files, key=PurePosixPath))


def write_bundle(bundle: Bundle) -> str:
    """Return the text of a signature file."""
    if bundle.certificates:
        chain = [{"rawBytes": _text(certificate)} for certificate in bundle.certificates]
        material: dict[str, Any] = {"x509CertificateChain": {"certificates": chain}}
    else:
        material = {"publicKey": {"hint": bundle.hint}}
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material | {"tlogEntries": []},
        "dsseEnvelope": {
            "payload": _text(bundle.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _text(bundle.signature), "keyid": ""}],
        },
    }
    return json.dumps(document, separators=(",", ":")) + "\n"


def _material(raw: Mapping[str, Any]) -> tuple[str, tuple[bytes, ...]]:
    """Return (hint of a key, certificates), one of them empty."""
    kinds = sorted({"publicKey", "x509CertificateChain", "certificate"} & set(raw))
    if kinds == ["certificate"]:
        raise BadSignature("it was made without a key (Sigstore), which cannot be verified without a network")
    if kinds == ["publicKey"]:
        hint = _mapping(raw, "publicKey").get("hint")
        return (hint if isinstance(hint, str) else ""), ()
    if kinds != ["x509CertificateChain"]:
        raise BadSignature("it does not say by one key or one certificate chain who signed")
    chain = _mapping(raw, "x509CertificateChain").get("certificates")
    if not isinstance(chain, list) or not chain or not all(isinstance(item, dict) for item in chain):
        raise BadSignature("its certificate chain is empty")
    return "", tuple(_bytes(item, "rawBytes") for item in chain)


def _files(raw: object) -> dict[str, str]:
    if not isinstance(raw, list) or not raw:
        raise BadSignature("the payload lists no files")
    files: dict[str, str] = {}
    for item in raw:
        name, digest = (item.get("name"), item.get("digest")) if isinstance(item, dict) else (None, None)
        # A path is only compared and printed, never opened.
        if not isinstance(name, str) or not name or not name.isprintable():
            raise BadSignature(f"the payload has a path that cannot be one: {name!r}")
        if item.get("algorithm") != "sha256" or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BadSignature(f"the payload has no SHA-256 for {name}")
        if name in files:
            raise BadSignature(f"the payload lists {name} twice")
        files[name] = digest
    return files


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _strict(text: str, what: str) -> dict[str, Any]:
    """Return a JSON object that can be read in one way only."""
    if len(text) > LARGEST:
        raise BadSignature(f"{what} has more than {LARGEST} characters")
    try:
        raw = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except BadSignature as error:
        raise BadSignature(f"{what} {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadSignature(f"{what} is not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise BadSignature(f"{what} is not a JSON object")
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadSignature(f"has {twice!r} twice in one object")
    return result


def _no_constant(word: str) -> object:
    raise BadSignature(f"holds {word}, which is no JSON")


def _mapping(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if not isinstance(value, dict):
        raise BadSignature(f"{key} is missing")
    return value


def _bytes(raw: Mapping[str, Any], key: str) -> bytes:
    value = raw.get(key)
    try:
        decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        raise BadSignature(f"{key} is not base64")
    return decoded


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
