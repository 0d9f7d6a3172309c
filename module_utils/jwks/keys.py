# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Which public keys of a JWKS document may judge signatures of tokens. Standard library only, Python 3.9+.

Used on the control host for documents that are given, and on a gateway for those that it fetches.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

MOST_KEYS = 64
LARGEST = 256 << 10
#: Bits of an RSA modulus: fewer can be broken, more cost the gateway too much for each token.
RSA_BITS = (2048, 8192)
SECRET_FIELDS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
P256 = {
    "p": 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
    "b": 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
}


class Unusable(ValueError):
    """A document, or one of its keys, that must not be used; the text says why."""


def _number(key: dict[str, Any], field: str) -> tuple[int, int]:
    """A field in base64url: (number, bytes). Raises Unusable."""
    text = key.get(field)
    try:
        if not isinstance(text, str):
            raise binascii.Error
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(f"its {field} is no base64url") from None
    return int.from_bytes(data, "big"), len(data)


def _rsa(key: dict[str, Any]) -> dict[str, Any]:
    modulus, exponent = _number(key, "n")[0], _number(key, "e")[0]
    least, most = RSA_BITS
    if not least <= modulus.bit_length() <= most:
        raise Unusable(f"its modulus has {modulus.bit_length()} bits, not {least} to {most}")
    if modulus % 2 == 0 or exponent % 2 == 0 or not 3 <= exponent < 1 << 32:
        raise Unusable("its numbers are no RSA key's")
    size = (modulus.bit_length() + 7) // 8
    return {"alg": "RS256", "size": size, "jwk": {"kty": "RSA", "n": key["n"], "e": key["e"]}}


def _ec(key: dict[str, Any]) -> dict[str, Any]:
    if key.get("crv") != "P-256":
        raise Unusable(f"its curve is {str(key.get('crv'))[:20]!r}, not P-256")
    (x, x_size), (y, y_size) = _number(key, "x"), _number(key, "y")
    prime = P256["p"]
    if (x_size, y_size) != (32, 32) or max(x, y) >= prime or (y * y - x * x * x + 3 * x - P256["b"]) % prime:
        raise Unusable("its point does not lie on P-256")
    return {"alg": "ES256", "size": 64, "jwk": {"kty": "EC", "crv": "P-256", "x": key["x"], "y": key["y"]}}


def _key(key: dict[str, Any]) -> dict[str, Any]:
    judge = {"RSA": _rsa, "EC": _ec}.get(str(key.get("kty")))
    if judge is None:
        raise Unusable(f"its type is {str(key.get('kty'))[:20]!r}, not RSA or EC")
    uses = key.get("key_ops", ["verify"])
    if key.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses:
        raise Unusable("it is for other uses than signatures")
    kid = key.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        raise Unusable("it has no kid, by which tokens name their key")
    found = judge(key)
    if key.get("alg", found["alg"]) != found["alg"]:
        raise Unusable(f"it is for {str(key['alg'])[:20]!r}, not {found['alg']}")
    return {"kid": kid, **found}


def usable(document: object) -> tuple[list[dict[str, Any]], list[str]]:
    """The keys [{kid, alg, size (bytes of a signature), jwk (nothing but the public key)}], and why others are none.

    Raises Unusable when the whole document must not be used: it holds a secret, is no JWKS, or no key of it fits.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise Unusable("it is no JWKS, an object with a list of keys")
    if len(keys) > MOST_KEYS:
        raise Unusable(f"it has {len(keys)} keys, more than {MOST_KEYS}")
    if any(SECRET_FIELDS & set(key) for key in keys):
        raise Unusable("it holds a private or a shared key, which belongs to the issuer alone - give the public ones")
    found, others = [], []
    for index, key in enumerate(keys):
        try:
            found.append(_key(key))
        except Unusable as error:
            others.append(f"key {index}: {error}")
    kids = [key["kid"] for key in found]
    if len(set(kids)) < len(kids):
        raise Unusable("two of its keys have the same kid")
    if not found:
        raise Unusable("none of its keys can be used" + "".join(f"; {line}" for line in others[:3]))
    return found, others


def preloaded(rows: list[dict[str, Any]]) -> str:
    """What Nginx holds ready for its programs, as JSON: {version (a digest of it), text (the rows, again JSON)}."""
    text = json.dumps(rows, sort_keys=True, separators=(",", ":"))
    return json.dumps({"version": hashlib.sha256(text.encode()).hexdigest()[:16], "text": text})


def parse(text: str | bytes) -> object:
    """A document of at most LARGEST bytes as it came. Raises Unusable."""
    if len(text) > LARGEST:
        raise Unusable(f"it is larger than {LARGEST} bytes")
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable("it is no JSON") from None
    return found
