"""Bad input of the gateway: each refusal names the variable, and no message holds a key."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.gateway_inputs import gateway_generation, gateway_problems
from policy.routes import gateway_routes
from tests.support.gateway_render import KEY, MODELS, ROLE, VARIABLES

DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
GOOD: dict[str, Any] = {**DEFAULTS, **VARIABLES}
DIGEST = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
OTHER = "sk-ffeeddccbbaa99887766554433221100ffeeddccbbaa9988"


def model(**changes: Any) -> list[dict[str, Any]]:
    return [{**copy.deepcopy(MODELS[0]), **changes}]


def test_good_settings_have_no_problem() -> None:
    assert gateway_problems(GOOD) == []


REFUSED: list[tuple[str, Any, str]] = [
    ("gateway_allowed_cidrs", [], "the list is empty"),
    ("gateway_allowed_cidrs", ["10.0.0.0/33"], "'10.0.0.0/33' is no network"),
    ("gateway_allowed_cidrs", ["10.0.0.1/8"], "host bits"),
    ("gateway_allowed_cidrs", ["example.org"], "'example.org' is no network"),
    ("gateway_allowed_cidrs", ["fd00::/200"], "'fd00::/200' is no network"),
    ("gateway_allowed_cidrs", "10.0.0.0/8", "is not a list"),
    ("gateway_allowed_cidrs", ["10.0.0.0/8 1; } evil {"], "is no network"),
    ("gateway_health_cidrs", ["x"], "'x' is no network"),
    ("gateway_server_names", [], "no name"),
    ("gateway_server_names", ["10.0.0.1"], "is an address"),
    ("gateway_server_names", ["*.example.org"], "no DNS name"),
    ("gateway_server_names", ["~.*"], "no DNS name"),
    ("gateway_server_names", ["UPPER.org"], "no DNS name"),
    ("gateway_server_names", ["a.org\nb"], "no DNS name"),
    ("gateway_server_names", ["a.org", "a.org"], "given twice"),
    ("gateway_api_keys", [], "no key"),
    ("gateway_api_keys", [{"name": "a", "key": "short"}], "5 characters instead of 32"),
    ("gateway_api_keys", [{"name": "a", "key": "x" * 40}], "can be guessed"),
    ("gateway_api_keys", [{"name": "a", "key": KEY + '" x; "'}], "cannot hold"),
    ("gateway_api_keys", [{"name": "a", "key": KEY + "\n"}], "cannot hold"),
    ("gateway_api_keys", [{"name": 'a" "b', "key": KEY}], "the name"),
    ("gateway_api_keys", [{"name": "a"}], "must have either key or digest"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "digest": "sha256:" + "0" * 64}], "either key or digest"),
    ("gateway_api_keys", [{"name": "a", "digest": "0" * 64}], "sha256: and 64 small hex digits"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "model": "small"}], "model is not known"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "models": ["tiny"]}], "'tiny' is none of large, small"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "models": []}], "leave it out for all"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "routes": ["/v1/embeddings"]}], "'/v1/embeddings' is none of /v1/"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "addresses": ["10.0.0.1/8"]}], "host bits"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "expires": "soon"}], "'soon' is no date"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "requests_per_minute": 0}], "1 or more"),
    ("gateway_api_keys", [{"name": "a", "key": KEY, "tokens_per_minute": "9"}], "without quotes"),
    ("gateway_api_keys", [{"name": "a", "key": KEY}, {"name": "A", "key": OTHER}], "'a' is given twice"),
    ("gateway_api_keys", [{"name": "a", "key": KEY}, {"name": "b", "key": KEY}], "the same key"),
    ("gateway_api_keys", [{"name": "a", "key": KEY}, {"name": "b", "digest": DIGEST}], "the same key"),
    ("gateway_models", [], "no model"),
    ("gateway_models", model(name="a b"), "cannot be part of a path"),
    ("gateway_models", model(name="../x"), "cannot be part of a path"),
    ("gateway_models", model(servers=[]), "no servers"),
    ("gateway_models", model(servers=["127.0.0.1"]), "write host:port"),
    ("gateway_models", model(servers=["127.0.0.1:99999"]), "write host:port"),
    ("gateway_models", model(servers=["a;b:80"]), "neither an address nor"),
    ("gateway_models", model(routes=[]), "no routes"),
    ("gateway_models", model(routes=[{"path": "/v1/*", "methods": ["GET"]}]), "no exact path"),
    ("gateway_models", model(routes=[{"path": "v1", "methods": ["GET"]}]), "no exact path"),
    ("gateway_models", model(routes=[{"path": "/v1/x", "methods": ["get"]}]), "methods"),
    ("gateway_models", model(balance="random"), "balance: 'random' is not known"),
    ("gateway_models", model(canary={"servers": ["10.0.0.9:1"], "percent": 101}), "percent: 101 must be"),
    ("gateway_models", model(canary={"servers": ["10.0.0.9:1"], "percent": "5"}), "percent: '5' must be"),
    ("gateway_models", model(canary={"servers": ["10.0.0.9:1"]}), "percent: None must be"),
    ("gateway_models", model(canary={"servers": [], "percent": 5}), "canary: no servers"),
    ("gateway_models", model(canary={"servers": ["a;b:80"], "percent": 5}), "neither an address nor"),
    ("gateway_models", model(canary={"servers": MODELS[0]["servers"], "percent": 5}), "serves the other revision too"),
    (
        "gateway_models",
        model(canary={"server": "10.0.0.9:1", "percent": 5}),
        "write {servers: ",
    ),
    ("gateway_models", model(weights=[2]), "weights: [2] - write"),
    ("gateway_models", model(weights={"10.9.9.9:1": 2}), "10.9.9.9:1 is none of its servers"),
    ("gateway_models", model(weights={MODELS[0]["servers"][0]: 0}), "0 must be a whole number from 1 to 100"),
    ("gateway_models", model(canary=10), "canary: 10 - write"),
    ("gateway_models", model(health_path="health"), "health_path 'health' is no exact path"),
    ("gateway_models", model(balance=None), "balance: None is not known"),
    ("gateway_models", [MODELS[0], MODELS[0]], "two routes would have the path /small/v1"),
    ("gateway_models", model(routes=[{"path": "/healthz", "methods": ["GET"]}]), "path /healthz"),
    ("gateway_listen_addresses", ["eth0"], "'eth0' is no IP address"),
    ("gateway_listen_addresses", [], "no address"),
    ("gateway_https_port", 80, "is gateway_http_port already"),
    ("gateway_status_port", 0, "no port"),
    ("gateway_max_body_size", "0", "no size above 0"),
    ("gateway_max_body_size", "32 MB", "no size above 0"),
    ("gateway_stream_timeout", 60, "without quotes, 600 or more"),
    ("gateway_tls_renew_days", 400, "not below gateway_tls_certificate_days"),
]


@pytest.mark.parametrize(("variable", "value", "wanted"), REFUSED)
def test_bad_value_is_refused_by_name(variable: str, value: Any, wanted: str) -> None:
    problems = gateway_problems({**GOOD, variable: value})
    assert any(wanted in line for line in problems), problems
    assert all(line.startswith("gateway_") for line in problems)


def test_all_problems_come_at_once_and_no_key_is_told() -> None:
    secret = "sk-secret\u00e9-0123456789abcdef0123456789"
    bad = {
        **GOOD,
        "gateway_allowed_cidrs": ["x"],
        "gateway_api_keys": [{"name": "a", "key": secret}, {"name": "b", "key": "tiny-secret"}],
    }
    text = "\n".join(gateway_problems(bad))
    assert text.count("\n") == 2
    assert "secret" not in text


def test_one_model_has_the_plain_paths_and_its_own() -> None:
    table = {route["path"]: (route["kind"], route["upstream"], route["target"]) for route in gateway_routes(MODELS[:1])}
    assert table == {
        "/v1/chat/completions": ("model", "redoubt_0", "/v1/chat/completions"),
        "/v1/models": ("model", "redoubt_0", "/v1/models"),
        "/small/v1/chat/completions": ("model", "redoubt_0", "/v1/chat/completions"),
        "/small/v1/models": ("model", "redoubt_0", "/v1/models"),
    }


def test_of_several_models_the_body_chooses() -> None:
    table = {route["path"]: route for route in gateway_routes(MODELS)}
    assert {path: (row["kind"], row.get("upstream")) for path, row in table.items()} == {
        "/v1/chat/completions": ("choose", None),
        "/v1/models": ("list", ""),
        "/-/small/v1/chat/completions": ("inner", "redoubt_0"),
        "/-/large/v1/chat/completions": ("inner", "redoubt_1"),
        "/small/v1/chat/completions": ("model", "redoubt_0"),
        "/small/v1/models": ("model", "redoubt_0"),
        "/large/v1/chat/completions": ("model", "redoubt_1"),
    }
    assert table["/v1/chat/completions"]["targets"] == [
        {"wanted": ":/v1/chat/completions", "path": "/-/small/v1/chat/completions"},
        {"wanted": "small:/v1/chat/completions", "path": "/-/small/v1/chat/completions"},
        {"wanted": "large:/v1/chat/completions", "path": "/-/large/v1/chat/completions"},
    ]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_generation_changes_with_every_part(parts: list[str]) -> None:
    first = gateway_generation("a @generation@ b", parts)
    assert first["text"] == f"a {first['generation']} b"
    assert first == gateway_generation("a @generation@ b", list(parts))
    for index in range(len(parts)):
        changed = [*parts[:index], parts[index] + "x", *parts[index + 1 :]]
        assert gateway_generation("a @generation@ b", changed)["generation"] != first["generation"]


@given(st.text(max_size=60))
def test_no_text_breaks_out_of_the_configuration(text: str) -> None:
    """Whatever passes as a name, network, key or model holds no character with a meaning to Nginx."""
    settings = {
        **GOOD,
        "gateway_server_names": [text],
        "gateway_allowed_cidrs": [text],
        "gateway_api_keys": [{"name": text, "key": text}],
        "gateway_models": model(name=text, servers=[text], routes=[{"path": text, "methods": ["GET"]}]),
    }
    refused = "\n".join(gateway_problems(settings))
    if set(text) & set("{};\"'\\$ \n\t#"):
        for variable in ("gateway_server_names", "gateway_allowed_cidrs", "gateway_api_keys[0]", "gateway_models[0]"):
            assert variable in refused
