"""Who comes with a token: what the rules say, whom the log and the quotas take them for, and who never comes in."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE, CHAT, Answer, ask, code, count, rest, stream_open
from tests.support.jwt_forged import forged
from tests.support.jwt_issuer import AUDIENCE, Issuer
from tests.support.plays import Play

# The engine's own list of models: what reaches it is counted.
MODELS = "/small/v1/models"
LOG = "/var/log/nginx/gateway-audit.jsonl"
ISSUERS = "/etc/redoubt/gateway/issuers.json"


def clients(host: Host, answers: list[Answer]) -> list[str]:
    """Whom the log takes each of these for."""
    wanted = [answer["headers"]["x-request-id"] for answer in answers]
    for _ in range(50):
        rows = [json.loads(line) for line in host.file(LOG).content_string.splitlines()]
        found = {row["request_id"]: row["client"] for row in rows}
        if set(wanted) <= set(found):
            return [found[name] for name in wanted]
        host.check_output("sleep 0.1")
    raise AssertionError("the log lacks some of them")


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
@pytest.mark.parametrize("path", [CHAT, f"/small{CHAT}", MODELS, "/v1/models"])
def test_good_token_is_taken_at_each_kind_of_route(host: Host, address: str, idp: Issuer, alg: str, path: str) -> None:
    """Twice: the second time it is known."""
    token, before = idp.token(alg, sub=f"{alg}@idp.lab"), count(host)
    body: dict[str, Any] = {"model": "small"} if path == CHAT else {}
    answers = [ask(address, path, key=token, **body) for _ in range(2)]
    assert [answer["status"] for answer in answers] == [200, 200]
    assert count(host) - before == (0 if path == "/v1/models" else 2)
    assert clients(host, answers) == [f"idp:{alg}@idp.lab"] * 2


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"typ": "at+jwt"}, {}),
        ({"typ": None}, {"nbf": None, "iat": None}),
        ({"jku": "https://evil.lab/keys", "x5u": "https://evil.lab/x", "jwk": {"kty": "EC"}}, {}),
        ({}, {"aud": ["someone", AUDIENCE]}),
        ({}, {"exp": -20}),
        ({}, {"nbf": 20}),
        ({}, {"department": ["surgery", "radiology"]}),
        ({}, {"more": [{"a": 1}, {"a": 1}], "text": '"sub":"x","sub":', "naïve": "é\\"}),
    ],
)
def test_what_other_issuers_write_is_good_too(
    address: str, idp: Issuer, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Clocks differ (seconds from now) by less than the leeway; keys that a token brings along are not looked at."""
    now = int(time.time())
    given = {name: now + value if isinstance(value, int) else value for name, value in claims.items()}
    assert ask(address, MODELS, key=idp.signed(idp.header(**header), idp.claims(**given)))["status"] == 200


def test_forged_tokens_reach_no_engine(host: Host, address: str, idp: Issuer, other: Issuer) -> None:
    table, before = forged(idp, other), count(host)
    wrong = []
    for name, token in table.items():
        for path in (MODELS, CHAT, "/v1/models"):
            answer = ask(address, path, key=token)
            error = json.loads(answer["body"]).get("error", {}) if answer["status"] else {}
            if answer["status"] != 401 or set(error) != {"message", "type", "param", "code"}:
                wrong.append(f"{answer['status']}: {name} at {path}")
    assert wrong == []
    assert count(host) == before
    assert len(table) >= 150
    assert ask(address, MODELS, key=idp.token())["status"] == 200


@pytest.mark.parametrize("place", ["X-API-Key", "query", "basic", "both"])
def test_token_in_another_place_is_none(host: Host, address: str, idp: Issuer, place: str) -> None:
    token, before = idp.token(), count(host)
    headers = {
        "X-API-Key": {"X-API-Key": token},
        "basic": {"Authorization": f"Basic {token}"},
        "both": {"X-API-Key": ALICE, "Authorization": f"Bearer {token}"},
    }
    path = f"{MODELS}?access_token={token}" if place == "query" else MODELS
    assert ask(address, path, key=None, headers=headers.get(place))["status"] == 401
    assert count(host) == before


def test_token_too_large_for_a_header_is_refused(host: Host, address: str, idp: Issuer) -> None:
    before = count(host)
    assert ask(address, MODELS, key=idp.token(x="x" * 20_000))["status"] == 431
    assert count(host) == before


@pytest.mark.parametrize(
    ("claims", "path", "status", "reason"),
    [
        ({"department": "radiology"}, f"/large{CHAT}", 403, "model_not_allowed"),
        ({"department": "cardiology"}, f"/small{CHAT}", 200, ""),
        # The first rule that fits counts, not the best one.
        ({"department": "radiology", "realm": {"roles": ["admin"]}}, f"/large{CHAT}", 403, "model_not_allowed"),
        ({"department": None, "realm": {"roles": ["user", "admin"]}}, f"/large{CHAT}", 200, ""),
        ({"department": "here"}, f"/large{CHAT}", 200, ""),
        ({"department": "elsewhere"}, f"/large{CHAT}", 403, "address_not_allowed_for_key"),
        ({"department": "lister"}, MODELS, 200, ""),
        ({"department": "lister"}, f"/small{CHAT}", 403, "route_not_allowed"),
        ({"department": "surgery"}, MODELS, 403, "no_rule"),
        ({"department": None}, CHAT, 403, "no_rule"),
        ({"department": {"radiology": 1}}, MODELS, 403, "no_rule"),
        ({"department": None, "realm.roles": "admin"}, MODELS, 403, "no_rule"),
        ({"department": "surgery", "realm": {"roles": "administrator"}}, "/v1/models", 403, "no_rule"),
    ],
)
def test_rules_say_who_may_what(
    host: Host, address: str, idp: Issuer, claims: dict[str, Any], path: str, status: int, reason: str
) -> None:
    before = count(host)
    answer = ask(address, path, key=idp.token(**claims))
    assert answer["status"] == status
    if reason:
        assert code(answer) == reason
    assert count(host) - before == (status == 200)
    assert clients(host, [answer]) == ["idp:eva"]


def test_expired_token_is_told_so(address: str, idp: Issuer) -> None:
    assert code(ask(address, MODELS, key=idp.token(exp=int(time.time()) - 3600))) == "expired_token"
    assert code(ask(address, MODELS, key=idp.token(aud="x"))) == "invalid_token"


def test_known_token_ends_all_the_same(address: str, other: Issuer) -> None:
    """One without leeway, used before and after its end."""
    token = other.token(person={"mail": "eva@other.lab"}, exp=int(time.time()) + 3)
    seen = []
    for _ in range(100):
        seen.append(ask(address, MODELS, key=token)["status"])
        if seen[-1] != 200:
            break
        time.sleep(0.1)
    assert (seen[0], seen[-1]) == (200, 401)
    assert code(ask(address, MODELS, key=token)) == "expired_token"


def test_models_are_those_of_the_rule(address: str, idp: Issuer) -> None:
    for roles, department, names in ((["admin"], "x", ["small", "large"]), ([], "radiology", ["small"])):
        token = idp.token(department=department, realm={"roles": roles})
        listed = json.loads(ask(address, "/v1/models", key=token)["body"])
        assert [model["id"] for model in listed["data"]] == names


def test_subject_is_the_clients_name_whatever_it_holds(host: Host, address: str, idp: Issuer, other: Issuer) -> None:
    subjects = ["auth0|5f7", "system:node:a", "a b", "a_b", "a\tb", '","client":"alice', "巴黎", "x" * 400, "x" * 401]
    answers = [ask(address, MODELS, key=idp.token(sub=subject)) for subject in subjects]
    answers.append(ask(address, MODELS, key=other.token(person={"mail": "eva@other.lab"})))
    assert [answer["status"] for answer in answers] == [200] * len(answers)
    names = clients(host, answers)
    assert names[:2] + names[3:4] + names[-1:] == [
        "idp:auth0|5f7",
        "idp:system:node:a",
        "idp:a_b",
        "other:eva@other.lab",
    ]
    assert len(set(names)) == len(names)
    assert all(len(name) < 100 and name.isascii() and '"' not in name for name in names)


def test_each_subject_has_its_own_minute(address: str, idp: Issuer) -> None:
    """Also with several tokens."""
    roles: dict[str, Any] = {"department": None, "realm": {"roles": ["three"]}}
    first = [ask(address, MODELS, key=idp.token(sub="first", jti=str(number), **roles)) for number in range(4)]
    assert [answer["status"] for answer in first] == [200, 200, 200, 429]
    assert first[-1]["headers"]["x-ratelimit-limit-requests"] == "3"
    assert ask(address, MODELS, key=idp.token(sub="second", **roles))["status"] == 200


def test_tokens_of_a_minute_are_the_subjects(address: str, idp: Issuer) -> None:
    """16 of the engine's tokens each, limit 40."""
    token = idp.token(sub="frugal", department=None, realm={"roles": ["frugal"]})
    assert [ask(address, CHAT, key=token, model="small")["status"] for _ in range(4)] == [200, 200, 200, 429]


def test_requests_at_a_time_are_the_subjects(address: str, idp: Issuer) -> None:
    mine, hers = (idp.token(sub=name, department=None, realm={"roles": ["single"]}) for name in ("one", "two"))
    held = stream_open(address, mine, events=20, pause=0.1)
    assert ask(address, CHAT, key=mine)["status"] == 429
    assert ask(address, CHAT, key=hers)["status"] == 200
    assert ask(address, CHAT)["status"] == 200  # alice's key, with the same limit
    assert "[DONE]" in rest(held)
    assert ask(address, CHAT, key=mine)["status"] == 200


def test_api_keys_are_as_they_were(address: str) -> None:
    assert ask(address, MODELS)["status"] == 200
    assert code(ask(address, MODELS, key="sk-nobody-0000000000000000000000000000")) == "invalid_api_key"


def test_unreadable_issuers_let_nobody_in(host: Host, address: str, idp: Issuer) -> None:
    """The check itself fails: the answer is 500 or 401, and the engine sees nothing."""
    token = idp.token()
    assert ask(address, MODELS, key=token)["status"] == 200
    spoil = f"""sed -i 's/"text": "/&x/; s/"version": "/&x/' {ISSUERS}"""
    host.check_output(f"cp -a {ISSUERS} /root/issuers.json && {spoil} && nginx -s reload")
    try:
        for _ in range(50):
            before = count(host)
            answer = ask(address, MODELS, key=token)
            if answer["status"] != 200:
                break
        assert (answer["status"], code(answer)) == (500, "gateway_error")
        assert ask(address, CHAT, key=token)["status"] == 401
        assert count(host) == before
        assert ask(address, MODELS)["status"] == 200  # alice's key
    finally:
        host.check_output(f"mv /root/issuers.json {ISSUERS} && nginx -s reload")
    for _ in range(50):
        if ask(address, MODELS, key=token)["status"] == 200:
            return
        host.check_output("sleep 0.1")
    raise AssertionError("the good issuers are not read again")


def test_key_that_is_withdrawn_ends_its_tokens_and_no_stream(address: str, idp: Issuer, play: Play) -> None:
    """The issuer's ES256 key is exchanged for another; the token was known to the gateway."""
    renewed = Issuer("idp", {**Issuer("idp").keys, "RS256": idp.keys["RS256"]})
    token = idp.token(sub="streamer")
    held = stream_open(address, token, events=100, pause=0.1)
    issuer = {
        "name": "idp",
        "issuer": idp.url,
        "audience": AUDIENCE,
        "jwks": renewed.jwks(),
        "rules": [{"claim": "department", "value": "radiology"}],
    }
    run = play(gateway_jwt_issuers=[issuer])
    assert (run.status, run.changed) == (0, 1)
    assert ask(address, MODELS, key=token)["status"] == 401
    assert ask(address, MODELS, key=renewed.token())["status"] == 200
    assert ask(address, MODELS, key=idp.token("RS256"))["status"] == 200
    assert "[DONE]" in rest(held)
    assert play().status == 0
    assert ask(address, MODELS, key=token)["status"] == 200


def test_without_issuers_no_token_is_taken_and_nothing_is_left(
    host: Host, address: str, idp: Issuer, play: Play
) -> None:
    assert play(gateway_jwt_issuers=[]).status == 0
    assert code(ask(address, MODELS, key=idp.token())) == "invalid_api_key"
    assert not host.file(ISSUERS).exists
    assert "gateway_issuers" not in host.file("/etc/nginx/nginx.conf").content_string
    assert play().status == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"algorithms": ["HS256"]}, "'HS256' is not accepted"),
        ({"algorithms": ["EdDSA"]}, "EdDSA needs Ed25519 in njs, which 0.8.9 of Debian 13 cannot check"),
        ({"jwks": "/nowhere/keys.json"}, "the file /nowhere/keys.json is not there, or is empty"),
        ({"rules": []}, "nobody could come in"),
    ],
)
def test_bad_issuers_are_refused_before_anything_changes(
    idp: Issuer, play: Play, change: dict[str, Any], words: str
) -> None:
    issuer = {"name": "idp", "issuer": idp.url, "audience": AUDIENCE, "jwks": idp.jwks(), "rules": [{}], **change}
    run = play(gateway_jwt_issuers=[issuer])
    assert (run.status, run.changed) == (2, 0)
    assert words in run.words
