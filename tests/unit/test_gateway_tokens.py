"""Issuers of tokens: what is refused, by name, and what Nginx gets of those that are good."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.gateway_inputs import gateway_problems
from module_utils.jwks.keys import LARGEST, Unusable, parse, usable
from policy.token_sources import sources
from policy.tokens import concurrencies, issuer_document, issuer_problems
from tests.support.gateway_render import MODELS, VARIABLES
from tests.support.jwt_issuer import Issuer, public_jwk

IDP = Issuer("idp")
KEYS = IDP.jwks()["keys"]
EC_KEY, RSA_KEY = KEYS
GOOD: dict[str, Any] = {
    "name": "idp",
    "issuer": "https://idp.lab",
    "audience": "redoubt",
    "jwks": {"keys": KEYS},
    "rules": [{"claim": "department", "value": "radiology", "models": ["small"], "concurrent_requests": 2}],
}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


def test_good_issuer_has_no_problem() -> None:
    more = {
        **without("jwks"),
        "name": "b",
        "issuer": "b",
        "jwks_url": "https://b.lab:8443/keys",
        "jwks_ca": trustme.CA().cert_pem.bytes().decode(),
        "algorithms": ["ES256"],
        "leeway_seconds": 0,
        "subject_claim": ["person", "mail"],
        "rules": [{"claim": ["realm", "roles"], "value": ["a", 7, True]}, {}],
    }
    assert issuer_problems([GOOD, more], MODELS, {}) == []
    assert issuer_problems([{**GOOD, "jwks": "/keys.json"}], MODELS, {"/keys.json": json.dumps(GOOD["jwks"])}) == []


def test_issuers_are_enough_to_come_in() -> None:
    settings = {**VARIABLES, "gateway_api_keys": [], "gateway_issued_keys": []}
    assert [line for line in gateway_problems(settings) if "no key is given" in line]
    assert not [line for line in gateway_problems({**settings, "gateway_jwt_issuers": [GOOD]}) if "no key" in line]


FETCHED = {**without("jwks"), "jwks_url": "https://idp.lab/keys"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    (without("issuer"), "issuer is missing"),
    (without("audience"), "audience is missing"),
    (without("rules"), "rules is missing"),
    (without("jwks"), "either jwks"),
    ({**GOOD, "jwks_url": "https://idp.lab/"}, "either jwks"),
    ({**GOOD, "jku": "x"}, "jku is not known"),
    ({**GOOD, "name": "a:b"}, "the name 'a:b'"),
    ({**GOOD, "name": ""}, "the name ''"),
    ({**GOOD, "issuer": ""}, "issuer: ''"),
    ({**GOOD, "issuer": ["https://idp.lab"]}, "must be the text that tokens carry"),
    ({**GOOD, "audience": "a b"}, "audience: 'a b'"),
    ({**GOOD, "algorithms": []}, "must be a list of RS256 and ES256"),
    ({**GOOD, "algorithms": "RS256"}, "must be a list of RS256 and ES256"),
    ({**GOOD, "algorithms": ["none"]}, "'none' is not accepted"),
    ({**GOOD, "algorithms": ["RS256", "HS256"]}, "'HS256' is not accepted"),
    ({**GOOD, "algorithms": ["es256"]}, "'es256' is not accepted"),
    ({**GOOD, "algorithms": ["EdDSA"]}, "njs, which 0.8.9 of Debian 13 cannot check"),
    ({**GOOD, "leeway_seconds": 301}, "0 to 300"),
    ({**GOOD, "leeway_seconds": "60"}, "without quotes"),
    ({**GOOD, "subject_claim": []}, "subject_claim: []"),
    ({**GOOD, "rules": []}, "nobody could come in"),
    ({**GOOD, "rules": ["radiology"]}, "rules[0]: must be an object"),
    ({**GOOD, "rules": [{"clam": "department"}]}, "rules[0]: clam is not known"),
    ({**GOOD, "rules": [{"claim": "department"}]}, "claim and value belong together"),
    ({**GOOD, "rules": [{"value": "radiology"}]}, "claim and value belong together"),
    ({**GOOD, "rules": [{"claim": 1, "value": "x"}]}, "claim: 1 must be a name"),
    ({**GOOD, "rules": [{"claim": "a", "value": []}]}, "value: []"),
    ({**GOOD, "rules": [{"claim": "a", "value": {"b": 1}}]}, "must be a text"),
    ({**GOOD, "rules": [{"claim": "a", "value": ""}]}, "must be a text"),
    ({**GOOD, "rules": [{"models": ["tiny"]}]}, "rules[0]: models: 'tiny' is none of large, small"),
    ({**GOOD, "rules": [{"routes": ["/metrics"]}]}, "'/metrics' is none of"),
    ({**GOOD, "rules": [{}, {"addresses": ["10.0.0.1/8"]}]}, "rules[1]: addresses: '10.0.0.1/8' is no network"),
    ({**GOOD, "rules": [{"tokens_per_minute": 0}]}, "1 or more"),
    ({**without("jwks"), "jwks_url": "http://idp.lab/keys"}, "is no address that keys may come from"),
    ({**without("jwks"), "jwks_url": "https://user:word@idp.lab/"}, "is no address that keys may come from"),
    ({**without("jwks"), "jwks_url": "https:///keys"}, "is no address that keys may come from"),
    ({**without("jwks"), "jwks_url": "file:///etc/passwd"}, "is no address that keys may come from"),
    ({**GOOD, "jwks_ca": "x"}, "jwks_ca is for jwks_url only"),
    ({**FETCHED, "jwks_ca": "/nowhere"}, "jwks_ca: /nowhere holds no certificate"),
    ({**FETCHED, "jwks_ca": "-----BEGIN CERTIFICATE-----"}, "jwks_ca: the text holds no certificate"),
    ({**GOOD, "jwks": ["x"]}, "must be a file on the control host"),
    ({**GOOD, "jwks": "/nowhere"}, "the file /nowhere is not there, or is empty"),
    ({**GOOD, "jwks": "{"}, "it is no JSON"),
    ({**GOOD, "jwks": {"keys": [RSA_KEY]}, "algorithms": ["ES256"]}, "none of its keys is for the issuer's algorithms"),
]


@pytest.mark.parametrize(("issuer", "wanted"), REFUSED)
def test_bad_issuer_is_refused_by_name(issuer: dict[str, Any], wanted: str) -> None:
    problems = issuer_problems([issuer], MODELS, {})
    assert any(wanted in line for line in problems), problems
    assert all(line.startswith("gateway_jwt_issuers[0]") for line in problems)


def test_issuers_are_told_apart() -> None:
    twin = {**GOOD, "name": "IDP"}
    assert issuer_problems([GOOD, twin], MODELS, {}) == [
        "gateway_jwt_issuers: the name 'idp' is given twice",
        "gateway_jwt_issuers: the issuer 'https://idp.lab' is given twice",
    ]


def rsa_jwk(bits: int) -> dict[str, Any]:
    return public_jwk(rsa.generate_private_key(65537, bits), "x")


UNUSABLE: list[tuple[object, str]] = [
    ([], "it is no JWKS"),
    ({"keys": {}}, "it is no JWKS"),
    ({"keys": ["x"]}, "it is no JWKS"),
    ({"keys": []}, "none of its keys can be used"),
    ({"keys": [{**EC_KEY, "kid": str(number)} for number in range(65)]}, "more than 64"),
    ({"keys": [EC_KEY, EC_KEY]}, "the same kid"),
    ({"keys": [EC_KEY, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}]}, "belongs to the issuer alone"),
    ({"keys": [{**EC_KEY, "d": EC_KEY["x"]}]}, "belongs to the issuer alone"),
    ({"keys": [{**RSA_KEY, "p": "AQ"}]}, "belongs to the issuer alone"),
    ({"keys": [{key: value for key, value in EC_KEY.items() if key != "kid"}]}, "key 0: it has no kid"),
    ({"keys": [{**EC_KEY, "kid": ""}]}, "it has no kid"),
    ({"keys": [{**EC_KEY, "use": "enc"}]}, "other uses"),
    ({"keys": [{**EC_KEY, "key_ops": ["sign"]}]}, "other uses"),
    ({"keys": [{**EC_KEY, "kty": "OKP", "crv": "Ed25519"}]}, "its type is 'OKP'"),
    ({"keys": [{**EC_KEY, "crv": "P-384"}]}, "its curve is 'P-384'"),
    ({"keys": [{**EC_KEY, "alg": "ES512"}]}, "it is for 'ES512', not ES256"),
    ({"keys": [{**RSA_KEY, "alg": "HS256"}]}, "it is for 'HS256', not RS256"),
    ({"keys": [{**RSA_KEY, "alg": "RSA-OAEP"}]}, "it is for 'RSA-OAEP', not RS256"),
    ({"keys": [{**EC_KEY, "x": EC_KEY["y"], "y": EC_KEY["x"]}]}, "does not lie on P-256"),
    ({"keys": [{**EC_KEY, "x": "AA"}]}, "does not lie on P-256"),
    ({"keys": [{**EC_KEY, "x": "!"}]}, "its x is no base64url"),
    ({"keys": [{**EC_KEY, "x": None}]}, "its x is no base64url"),
    ({"keys": [rsa_jwk(1024)]}, "its modulus has 1024 bits"),
    ({"keys": [{**RSA_KEY, "e": "AQ"}]}, "no RSA key's"),
    ({"keys": [{**RSA_KEY, "e": "AQAA"}]}, "no RSA key's"),
]


@pytest.mark.parametrize(("document", "wanted"), UNUSABLE)
def test_bad_keys_are_not_used(document: object, wanted: str) -> None:
    with pytest.raises(Unusable, match=wanted):
        usable(document)


def test_good_keys_are_used_beside_others_and_come_bare() -> None:
    found, others = usable({"keys": [{**EC_KEY, "x5c": ["evil"], "key_ops": ["verify"]}, {"kty": "OKP"}, RSA_KEY]})
    assert [(key["kid"], key["alg"], key["size"]) for key in found] == [
        ("idp-ES256", "ES256", 64),
        ("idp-RS256", "RS256", 256),
    ]
    assert [set(key["jwk"]) for key in found] == [{"kty", "crv", "x", "y"}, {"kty", "n", "e"}]
    assert others == ["key 1: its type is 'OKP', not RSA or EC"]


def test_every_key_of_the_curve_is_good() -> None:
    for number in range(20):
        usable({"keys": [public_jwk(ec.generate_private_key(ec.SECP256R1()), str(number))]})


def test_documents_have_a_bound() -> None:
    with pytest.raises(Unusable, match="larger than"):
        parse(" " * (LARGEST + 1))
    with pytest.raises(Unusable, match="no JSON"):
        parse("[" * 100_000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["keys", "kty", "kid", "crv", "x", "y", "n", "e", "use", "alg", "key_ops"]), inner
            )
        ),
    )
)
def test_whatever_comes_is_judged(document: object) -> None:
    """No document of another shape ends otherwise than by a refusal."""
    with pytest.raises(Unusable):
        usable(document)
    with pytest.raises(Unusable):
        usable({"keys": [document]})


def test_nginx_gets_rules_and_no_more_than_the_keys() -> None:
    held = json.loads(issuer_document([GOOD], {}))
    (issuer,) = json.loads(held["text"])
    assert issuer["rules"] == [
        {"claim": ["department"], "values": ["radiology"], "rights": {"models": ["small"], "concurrent": 2}}
    ]
    assert (issuer["leeway"], issuer["subject"], issuer["fetched"]) == (60, ["sub"], "")
    assert [key["kid"] for key in issuer["keys"]] == ["idp-ES256", "idp-RS256"]
    only = json.loads(json.loads(issuer_document([{**GOOD, "algorithms": ["ES256"]}], {}))["text"])[0]
    assert [key["kid"] for key in only["keys"]] == ["idp-ES256"]
    assert concurrencies([GOOD]) == [2]


def test_gateway_gets_what_it_needs_to_fetch() -> None:
    listed, ca = sources([GOOD, {**FETCHED, "name": "b", "jwks_ca": "/ca.pem"}], {"/ca.pem": "PEM"})
    assert json.loads(listed["content"]) == [
        {"name": "b", "url": "https://idp.lab/keys", "algorithms": ["RS256", "ES256"], "ca": ca["path"]}
    ]
    assert (ca["path"], ca["content"]) == ("/usr/local/lib/redoubt/jwks/b.pem", "PEM")
    held = json.loads(json.loads(issuer_document([FETCHED], {}))["text"])[0]
    assert (held["fetched"], held["keys"]) == ("/var/lib/redoubt/jwks/keys.json", [])


@pytest.mark.parametrize(
    "change",
    [{"audience": "x"}, {"leeway_seconds": 0}, {"jwks": {"keys": [RSA_KEY]}}, {"rules": [{}]}, {"subject_claim": "x"}],
)
def test_version_changes_with_everything(change: dict[str, Any]) -> None:
    """Nginx forgets the tokens that it knows when the version changes."""
    before, after = (json.loads(issuer_document([entry], {}))["version"] for entry in (GOOD, {**GOOD, **change}))
    assert before != after
