"""An issuer of tokens for the tests: its keys, good tokens, and the parts of which bad ones are made.

`python -m tests.support.jwt_issuer FOLDER NAME` makes its keys in FOLDER: NAME.json (JWKS) and NAME-ALGORITHM.pem,
and the CA (NAME-ca.pem) and certificate with key (NAME-server.pem) of a server on localhost that hands them out.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "redoubt"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(content: object) -> str:
    """A part of a token: JSON of an object, or these very bytes."""
    return encoded(content if isinstance(content, bytes) else json.dumps(content).encode())


def public_jwk(key: Key, kid: str) -> dict[str, Any]:
    """The public half, as it stands in a JWKS."""
    if isinstance(key, rsa.RSAPrivateKey):
        found = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        found = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, "use": "sig"}


class Issuer:
    """Two keys by algorithm, ES256 and RS256, and the tokens that they sign."""

    def __init__(self, name: str, keys: dict[str, Key] | None = None) -> None:
        self.name = name
        self.url = f"https://{name}.lab"
        self.keys: dict[str, Key] = keys or {
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "RS256": rsa.generate_private_key(65537, 2048),
        }

    @classmethod
    def load(cls, folder: Path, name: str) -> Issuer:
        """The issuer whose keys lie in a folder."""
        keys: dict[str, Key] = {}
        for alg in ("ES256", "RS256"):
            key = serialization.load_pem_private_key((folder / f"{name}-{alg}.pem").read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
            keys[alg] = key
        return cls(name, keys)

    def save(self, folder: Path) -> None:
        """Leave the keys in a folder."""
        (folder / f"{self.name}.json").write_text(json.dumps(self.jwks()))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for alg, key in self.keys.items():
            (folder / f"{self.name}-{alg}.pem").write_bytes(key.private_bytes(*form))

    def kid(self, alg: str) -> str:
        """The name of a key, which no other issuer uses."""
        return f"{self.name}-{alg}"

    def jwks(self) -> dict[str, Any]:
        """Both public keys."""
        return {"keys": [public_jwk(key, self.kid(alg)) for alg, key in self.keys.items()]}

    def header(self, alg: str = "ES256", **changes: Any) -> dict[str, Any]:
        """A good header; what is changed to None is left out."""
        return _changed({"alg": alg, "typ": "JWT", "kid": self.kid(alg)}, changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims; what is changed to None is left out."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "eva", "iat": now, "nbf": now, "exp": now + 600}
        return _changed({**good, "department": "radiology"}, changes)

    def signed(self, header: object, claims: object, alg: str = "ES256") -> str:
        """Whatever is given, with a true signature of this issuer's key."""
        text = f"{part(header)}.{part(claims)}"
        return f"{text}.{encoded(self.signature(text, alg))}"

    def signature(self, text: str, alg: str = "ES256") -> bytes:
        """The signature of a text."""
        return jwt.get_algorithm_by_name(alg).sign(text.encode(), self.keys[alg])

    def token(self, alg: str = "ES256", **claims: Any) -> str:
        """A good token as the library makes it, but for what is changed in the claims."""
        return jwt.encode(self.claims(**claims), self.keys[alg], alg, headers={"kid": self.kid(alg)})


def _changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


if __name__ == "__main__":
    target, issuer = Path(sys.argv[1]), Issuer(sys.argv[2])
    issuer.save(target)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(target / f"{issuer.name}-ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(target / f"{issuer.name}-server.pem")
    )
