"""One small model with a signature, judged as preflight does it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from provenance import signatures
from provenance.sign import sign
from provenance.signatures import Verdict
from tests.support.plan_documents import REVISION, digest
from tests.support.signing import Identity, identity, key, public_pem

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
