"""The policy on a configuration that accepts tokens: what the role renders passes, each seeded breach is refused."""

from __future__ import annotations

import pytest

from policy import breaches
from policy.routes import gateway_routes
from tests.support.gateway_render import MODELS, VARIABLES, Rendered, render
from tests.support.jwt_issuer import Issuer

KEYS = "../redoubt/gateway/keys.conf"
PAGES = ["/", "/page.css", "/page.js", "/ca.crt"]
ISSUERS = {"gateway_issuers": "../redoubt/gateway/issuers.json"}
PRELOAD = "js_preload_object gateway_issuers from ../redoubt/gateway/issuers.json;"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    rules = [{"claim": "department", "value": "x", "concurrent_requests": 3}, {"concurrent_requests": 4}]
    issuer = {"name": "idp", "issuer": "i", "audience": "a", "jwks": Issuer("idp").jwks(), "rules": rules}
    return render(tmp_path_factory.mktemp("render"), gateway_jwt_issuers=[issuer])


def check(text: str, preloaded: dict[str, str] | None = None) -> list[str]:
    routes = gateway_routes(MODELS, PAGES)
    return breaches(text, routes, MODELS, VARIABLES["gateway_allowed_cidrs"], [KEYS], preloaded)


def test_what_the_role_renders_passes(rendered: Rendered) -> None:
    assert (rendered.problems, rendered.breaches) == ([], [])
    assert check(rendered.text, ISSUERS) == []
    assert PRELOAD in rendered.text
    assert "idp-ES256" in rendered.issuers
    for limit in (3, 4):
        assert f"limit_conn gateway_concurrent_{limit} {limit};" in rendered.text
        assert f"default $gateway_subject_{limit};" in rendered.keys


BREACHES = {
    "issuers of another file": (PRELOAD, PRELOAD.replace("issuers.json", "other.json"), "is not what the plan says"),
    "issuers by another name": (PRELOAD, PRELOAD.replace("gateway_issuers", "keys"), "is not what the plan says"),
    "file without a name": (PRELOAD, "js_preload_object gateway_issuers.json;", "is not what the plan says"),
    "more objects": (PRELOAD, PRELOAD + "js_preload_object gateway_fetched from /tmp/x;", "is not what the plan says"),
    "other shared memory": ("zone=gateway_tokens:", "zone=others:", "zone=others:8m is none of gateway_quota"),
    "tokens judged elsewhere": (
        "js_set $gateway_verdict keys.verdict;",
        "js_set $gateway_verdict tokens.record;",
        "only",
    ),
    "tokens by themselves": ("js_import keys.js;", "js_import tokens.js;", "is none of conversations.js, keys.js"),
    "token set by hand": ('set $gateway_model "small";', 'set $gateway_token x; set $gateway_model "";', "not be set"),
    "rights in the log": ('"path":"$gateway_path"', '"path":"$gateway_token"', "$gateway_token"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_refused(rendered: Rendered, name: str) -> None:
    old, new, wanted = BREACHES[name]
    assert old in rendered.text, f"the seed of {name!r} no longer fits the template"
    found = check(rendered.text.replace(old, new), ISSUERS)
    assert any(wanted in line for line in found), found


def test_without_issuers_nothing_of_them_is_there(rendered: Rendered) -> None:
    assert any("js_preload_object" in line for line in check(rendered.text))


def test_default_configuration_has_nothing_of_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = render(tmp_path_factory.mktemp("render"))
    assert made.issuers == ""
    assert [
        word
        for word in ("preload", "gateway_token:", "gateway_tokens", "gateway_subject")
        if word in made.text + made.keys
    ] == []
