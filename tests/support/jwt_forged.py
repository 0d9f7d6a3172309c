"""Tokens that must never let anybody in, each with a name that says what is wrong with it.

Each is a good token but for that one thing, so that it shows the check that it is for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.support.jwt_issuer import AUDIENCE, Issuer, encoded, part, public_jwk

Named = tuple[str, str]
#: Order of P-256's group: as (r, s) it is zero in disguise.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _unsigned(issuer: Issuer) -> Iterator[Named]:
    good = issuer.token().rsplit(".", 1)[1]
    for alg in ("none", "None", "NONE", "nOnE", "none ", ""):
        text = f"{part(issuer.header(alg=alg, kid=issuer.kid('ES256')))}.{part(issuer.claims())}"
        yield f"alg {alg!r}, no signature", f"{text}."
        yield f"alg {alg!r}, a signature", f"{text}.{good}"
    wrong: Any
    for wrong in (None, 256, ["ES256"], {"ES256": 1}, True, "es256", "ES256 ", "ES256\u0000"):
        yield f"alg {wrong!r}", issuer.signed(issuer.header() | {"alg": wrong}, issuer.claims())
    yield "no alg", issuer.signed(_without(issuer.header(), "alg"), issuer.claims())


def _confused(issuer: Issuer) -> Iterator[Named]:
    """What is public taken for a shared secret, or one kind of key for another."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    for alg, key in issuer.keys.items():
        public = key.public_key()
        secrets = {
            "PEM": public.public_bytes(serialization.Encoding.PEM, spki),
            "DER": public.public_bytes(serialization.Encoding.DER, spki),
            "JWK": json.dumps(public_jwk(key, issuer.kid(alg))).encode(),
            "nothing": b"",
        }
        for form, secret in secrets.items():
            for name in ("HS256", "HS512"):
                text = f"{part(issuer.header(alg=name, kid=issuer.kid(alg)))}.{part(issuer.claims())}"
                digest = hmac.new(secret, text.encode(), getattr(hashlib, f"sha{name[2:]}")).digest()
                yield f"{name} with the {alg} key's {form}", f"{text}.{encoded(digest)}"
    for alg, other in (("ES256", "RS256"), ("RS256", "ES256")):
        yield f"{alg} by kid of {other}", issuer.signed(issuer.header(alg, kid=issuer.kid(other)), issuer.claims(), alg)
        yield f"{other} said, {alg} signed", issuer.signed(issuer.header(alg) | {"alg": other}, issuer.claims(), alg)
    for alg in ("RS384", "RS512", "PS256"):
        headers = {"kid": issuer.kid("RS256")}
        yield f"{alg} of the right key", jwt.encode(issuer.claims(), issuer.keys["RS256"], alg, headers=headers)


def _strangers(issuer: Issuer, other: Issuer) -> Iterator[Named]:
    """Other keys, and ways to bring one's own."""
    stranger = Issuer(issuer.name)
    for alg in issuer.keys:
        yield f"a stranger's {alg} key", stranger.token(alg)
        own = public_jwk(stranger.keys[alg], issuer.kid(alg))
        for field, value in {
            "jwk": own,
            "jku": "https://127.0.0.1:8101/keys",
            "x5u": "https://127.0.0.1:8101/certificate",
            "x5c": ["MIIB"],
        }.items():
            yield (
                f"{field} of a stranger's {alg} key",
                stranger.signed(issuer.header(alg, **{field: value}), issuer.claims(), alg),
            )
    for kid in ("", "unknown", "../../../dev/null", "__proto__", "constructor", "0", issuer.kid("ES256").upper()):
        yield f"kid {kid!r}", issuer.signed(issuer.header(kid=kid), issuer.claims())
    wrong: Any
    for wrong in (None, 0, [issuer.kid("ES256")], {}, True):
        yield f"kid {wrong!r}", issuer.signed(issuer.header() | {"kid": wrong}, issuer.claims())
    yield "no kid", issuer.signed(_without(issuer.header(), "kid"), issuer.claims())
    yield "another issuer's key", other.signed(other.header(), other.claims(iss=issuer.url))
    yield "another issuer's name", issuer.signed(issuer.header(), issuer.claims(iss=other.url))


def _headers(issuer: Issuer) -> Iterator[Named]:
    for field, value in (("crit", ["exp"]), ("crit", []), ("crit", None), ("b64", False), ("b64", True)):
        yield f"header {field}: {value!r}", issuer.signed(issuer.header() | {field: value}, issuer.claims())
    for kind in ("logout+jwt", "JWE", "", 1, None, ["JWT"]):
        yield f"typ {kind!r}", issuer.signed(issuer.header() | {"typ": kind}, issuer.claims())


def _claims(issuer: Issuer) -> Iterator[Named]:
    now = int(time.time())
    values: dict[str, list[Any]] = {
        "exp": [now - 3600, now - 90, 0, -1, None, str(now + 600), [now + 600], True, {}],
        "nbf": [now + 3600, str(now), None, [now], False],
        "iat": [now + 3600, str(now), None, {}],
        "aud": ["other", AUDIENCE + "2", AUDIENCE[:-1], AUDIENCE.upper(), "", None, 1, [], ["other"], [[AUDIENCE]]],
        "iss": ["https://evil.lab", issuer.url + "/", issuer.url.upper(), "", None, 1, [issuer.url]],
        "sub": ["", None, 7, ["eva"], {"name": "eva"}],
    }
    values["aud"] += [{AUDIENCE: 1}, f"{AUDIENCE} other", ["other", [AUDIENCE]]]
    for name, wrong in values.items():
        for value in wrong:
            yield f"{name} {value!r}", issuer.signed(issuer.header(), issuer.claims() | {name: value})
    for name in ("exp", "aud", "iss", "sub"):
        yield f"no {name}", issuer.signed(issuer.header(), _without(issuer.claims(), name))
    for word in (b"1e999", b"NaN", b"Infinity", b"-1e999"):
        text = json.dumps(issuer.claims(exp=123456789)).encode().replace(b"123456789", word)
        yield f"exp {word!r}", issuer.signed(issuer.header(), text)


def _signatures(issuer: Issuer) -> Iterator[Named]:
    for alg in issuer.keys:
        token, other = issuer.token(alg), issuer.token(alg, sub="admin")
        head, body, signature = token.split(".")
        yield f"{alg}: no signature", f"{head}.{body}."
        yield f"{alg}: cut by one character", token[:-1]
        yield f"{alg}: cut in half", f"{head}.{body}.{signature[: len(signature) // 2]}"
        yield f"{alg}: longer", f"{token}AAAA"
        yield f"{alg}: a bit turned", f"{head}.{body}.{_turned(signature)}"
        yield f"{alg}: zeros", f"{head}.{body}.{'A' * len(signature)}"
        yield f"{alg}: another token's signature", f"{head}.{body}.{other.rsplit('.', 1)[1]}"
        yield f"{alg}: another token's claims", f"{head}.{other.split('.')[1]}.{signature}"
        yield f"{alg}: head and claims swapped", f"{body}.{head}.{signature}"
        yield f"{alg}: last bits written otherwise", token[:-1] + _sibling(token[-1])
        yield f"{alg}: padded", token + "=="
    text = f"{part(issuer.header())}.{part(issuer.claims())}"
    for r, s in ((0, 0), (0, 1), (1, 0), (ORDER, ORDER), (ORDER, 0)):
        yield f"ES256 of numbers {r:x}, {s:x}", f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    raw = issuer.signature(text)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    yield "ES256 as DER", f"{text}.{encoded(der)}"
    ec_key, rsa_key = issuer.keys["ES256"], issuer.keys["RS256"]
    assert isinstance(ec_key, ec.EllipticCurvePrivateKey)
    assert isinstance(rsa_key, rsa.RSAPrivateKey)
    text = f"{part(issuer.header('RS256'))}.{part(issuer.claims())}"
    sha1 = rsa_key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - it must be refused
    yield "RS256 by SHA-1", f"{text}.{encoded(sha1)}"


def _shapes(issuer: Issuer) -> Iterator[Named]:
    token = issuer.token()
    head, body, signature = token.split(".")
    yield from (("only dots", ".."), ("more dots", "..."), ("two parts", f"{head}.{body}"), ("one part", head))
    yield from (("a dot before", f".{token}"), ("a dot behind", f"{token}."), ("twice", f"{token}.{token}"))
    yield from (
        ("five parts", f"{head}.{body}.{signature}.{body}.{signature}"),
        ("a dot within", f"{head}..{body}.{signature}"),
    )
    yield from (("with a space", f"{head}. {body}.{signature}"), ("Bearer twice", f"Bearer {token}"))
    yield from (("two tokens", f"{token} {token}"), ("two, with a comma", f"{token},{token}"), ("quoted", f'"{token}"'))
    yield "padded head", f"{head}=.{body}.{signature}"
    yield "no base64", f"{head[:-1]}!.{body}.{signature}"
    yield "percent signs", token.replace(".", "%2e")
    yield "bytes that are no text", f"{head}.\xff\xfe{body}.{signature}"
    for name, content in {
        "no JSON": b"not json",
        "nothing": b"",
        "null": b"null",
        "a list": json.dumps([issuer.claims()]).encode(),
        "a text": json.dumps("x").encode(),
        "no UTF-8": json.dumps(issuer.claims(sub="@")).encode().replace(b"@", b"\xff\xfe"),
        "UTF-16": json.dumps(issuer.claims()).encode("utf-16-le"),
        "more behind it": json.dumps(issuer.claims()).encode() + b"{}",
        "nested deep": json.dumps(issuer.claims(x="@")).encode().replace(b'"@"', b"[" * 900 + b"]" * 900),
        "sub twice": _twice(issuer.claims(), b'"sub":"admin"'),
        "sub twice, once escaped": _twice(issuer.claims(), b'"s\\u0075b": "admin"'),
        "exp twice": _twice(issuer.claims(), b'"exp":9999999999'),
        "iss twice": _twice(issuer.claims(), f'"iss" : "{issuer.url}"'.encode()),
        "a name twice within": json.dumps(issuer.claims(x="@")).encode().replace(b'"@"', b'[{"a":1,"a":2}]'),
        "huge": json.dumps(issuer.claims(x="x" * 9000)).encode(),
    }.items():
        yield f"claims: {name}", issuer.signed(issuer.header(), content)
    for name, content in {
        "no JSON": b"{alg:ES256}",
        "null": b"null",
        "a list": json.dumps([issuer.header()]).encode(),
        "alg twice": _twice(issuer.header(), b'"alg":"none"'),
        "kid twice": _twice(issuer.header(), b'"kid":"x"'),
    }.items():
        yield f"header: {name}", issuer.signed(content, issuer.claims())
    yield "a token as the claims", issuer.signed(issuer.header(), issuer.token().encode())


def _without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


def _twice(content: dict[str, Any], more: bytes) -> bytes:
    """An object that begins with one name more than it should: the good value is the last one."""
    return b"{" + more + b"," + json.dumps(content).encode()[1:]


def _turned(signature: str) -> str:
    return ("B" if signature[0] == "A" else "A") + signature[1:]


def _sibling(character: str) -> str:
    """The character that differs in the last bit only, which the last one of a signature does not use."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(character) ^ 1]


def forged(issuer: Issuer, other: Issuer) -> dict[str, str]:
    """All of them, by name; `other` is another issuer that the gateway accepts."""
    found: dict[str, str] = {}
    for maker in (_unsigned, _confused, _headers, _claims, _signatures, _shapes):
        found.update(maker(issuer))
    found.update(_strangers(issuer, other))
    return found
