"""What a key may, what it may no more, and what it is told: every limit met on purpose."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE, CHAT, Answer, ask, code, count, rest, secret, stream_open
from tests.support.plays import Play
from tests.support.raw_http import context, exchange, written

BOB = "sk-Bob-fedcba9876543210fedcba9876543210fedcba98765432"
# The engine's own list of models: what reaches it is counted.
MODELS = "/small/v1/models"
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
STUB = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/support/stub_chat_engine.py")
LOG = "/var/log/nginx/gateway-audit.jsonl"
KEYS = "/etc/redoubt/gateway/keys.conf"


def logged(host: Host, answer: Answer) -> Answer:
    """What the access log says of a request."""
    wanted = answer["headers"]["x-request-id"]
    for _ in range(50):
        for line in reversed(host.file(LOG).content_string.splitlines()):
            entry: Answer = json.loads(line)
            if entry["request_id"] == wanted:
                return entry
        host.check_output("sleep 0.1")
    raise AssertionError(f"{wanted} is not in the log")


@pytest.mark.parametrize(
    "headers", [{"X-API-Key": ALICE}, {"x-api-key": BOB}, {"X-API-Key": BOB, "Authorization": f"Bearer {BOB}"}]
)
def test_key_in_its_own_header(address: str, headers: dict[str, str]) -> None:
    assert ask(address, MODELS, key=None, headers=headers)["status"] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": ALICE, "Authorization": f"Bearer {BOB}"},
        {"X-API-Key": ALICE, "Authorization": "Basic eA=="},
        {"X-API-Key": ALICE.upper()},
        {"X-API-Key": f"{ALICE},{ALICE}"},
        {"X-API-Key": f"Bearer {ALICE}"},
        {"X-API-Key": ""},
    ],
)
def test_two_keys_or_half_a_key_is_none(host: Host, address: str, headers: dict[str, str]) -> None:
    before = count(host)
    answer = ask(address, MODELS, key=None, headers=headers)
    assert (answer["status"], code(answer)) == (401, "invalid_api_key")
    assert count(host) == before


@pytest.mark.parametrize(
    ("name", "path", "status", "reason"),
    [
        ("past", MODELS, 401, "expired_api_key"),
        ("future", MODELS, 200, ""),
        ("here", MODELS, 200, ""),
        ("next-door", MODELS, 403, "address_not_allowed_for_key"),
        ("lister", MODELS, 200, ""),
        ("lister", "/large/v1/models", 200, ""),
        ("lister", CHAT, 403, "route_not_allowed"),
        ("turning-new", MODELS, 200, ""),
        ("turning-old", MODELS, 200, ""),
        ("turned-new", MODELS, 200, ""),
        ("turned-old", MODELS, 401, "expired_api_key"),
    ],
)
def test_key_may_what_it_says(host: Host, address: str, name: str, path: str, status: int, reason: str) -> None:
    before = count(host)
    answer = ask(address, path, key=secret(name))
    assert answer["status"] == status
    if reason:
        assert code(answer) == reason
    assert count(host) - before == (status == 200)
    entry = logged(host, answer)
    assert entry["client"] == ("" if status == 401 else name.removesuffix("-new").removesuffix("-old"))


def test_key_for_one_model_reaches_no_other(host: Host, address: str) -> None:
    assert ask(address, f"/small{CHAT}", key=BOB)["status"] == 200
    before = count(host)
    answer = ask(address, f"/large{CHAT}", key=BOB)
    assert (answer["status"], code(answer)) == (403, "model_not_allowed")
    assert count(host) == before
    assert logged(host, answer)["refused"] == "model"


def test_requests_of_a_minute_are_counted_and_told(host: Host, address: str) -> None:
    before = count(host)
    answers = [ask(address, MODELS, key=secret("three")) for _ in range(5)]
    assert [answer["status"] for answer in answers] == [200, 200, 200, 429, 429]
    assert count(host) - before == 3
    assert [answer["headers"]["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0", "0"]
    last = answers[-1]
    assert code(last) == "rate_limit_exceeded"
    assert last["headers"]["x-ratelimit-limit-requests"] == "3"
    assert 1 <= int(last["headers"]["retry-after"]) <= 120
    assert last["headers"]["x-ratelimit-reset-requests"] == last["headers"]["retry-after"] + "s"
    assert "x-ratelimit-limit-tokens" not in last["headers"]
    assert "x-ratelimit-limit-requests" not in ask(address, MODELS)["headers"]


@pytest.mark.parametrize(("name", "stream"), [("frugal", False), ("streamer", True)])
def test_tokens_of_a_minute_are_the_engines(host: Host, address: str, name: str, stream: bool) -> None:
    """16 tokens each, limit 40: the fourth request meets it."""
    answers = [ask(address, CHAT, key=secret(name), stream=stream, padding=20_000) for _ in range(4)]
    assert [answer["status"] for answer in answers] == [200, 200, 200, 429]
    assert [answer["headers"]["x-ratelimit-remaining-tokens"] for answer in answers] == ["40", "24", "8", "0"]
    assert "tokens" in json.loads(answers[-1]["body"])["error"]["message"]
    assert [logged(host, answer)["completion_tokens"] for answer in answers] == [5, 5, 5, 0]


def test_body_chooses_the_model(host: Host, address: str) -> None:
    for answer, model in (
        (ask(address, CHAT, model="large"), "large"),
        (ask(address, CHAT, model="small"), "small"),
        (ask(address, CHAT), "small"),
    ):
        assert answer["status"] == 200
        entry = logged(host, answer)
        assert (entry["model"], entry["path"]) == (model, CHAT)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ('{"model": "huge"}', 404, "model_not_found"),
        ('{"model": "small:/v1/chat/completions"}', 404, "model_not_found"),
        ('{"model": ["small"], "x": 1', 400, "invalid_json"),
        ('{"model": "small", "model": "large"}', 403, "model_not_allowed"),
        ('{"mod\\u0065l": "large"}', 403, "model_not_allowed"),
    ],
)
def test_no_body_chooses_around_the_key(host: Host, address: str, body: str, status: int, reason: str) -> None:
    """bob's key is for `small` only."""
    before = count(host)
    answer = exchange(address, 443, written(CHAT, "POST", key=BOB, body=body), context(), "redoubt.lab")
    assert (answer["status"], code(answer)) == (status, reason)
    assert count(host) == before


def test_bodies_are_read_whole(host: Host, address: str) -> None:
    """The name stands behind 20 MiB."""
    answer = ask(address, CHAT, text="x" * (20 << 20), model="large")
    assert answer["status"] == 200
    assert logged(host, answer)["model"] == "large"


def test_no_body_is_read_for_nobody(address: str) -> None:
    assert ask(address, CHAT, key="sk-nobody-0000000000000000000000000000", model="large")["status"] == 401
    assert ask(address, f"/-/small{CHAT}")["status"] == 404


def test_models_are_those_of_the_key(address: str) -> None:
    for presented, names in ((ALICE, ["small", "large"]), (BOB, ["small"])):
        listed = json.loads(ask(address, "/v1/models", key=presented)["body"])
        assert [model["id"] for model in listed["data"]] == names
    assert ask(address, "/v1/models", key=secret("next-door"))["status"] == 403
    assert ask(address, "/v1/models", key=secret("past"))["status"] == 401


def test_usage_is_the_engines_not_the_texts(host: Host, address: str) -> None:
    answer = ask(address, CHAT, padding=70_000)
    assert "99999" in answer["body"]
    entry = logged(host, answer)
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["usage"]) == (11, 5, "engine")


@pytest.mark.parametrize("asked", [True, False])
def test_stream_arrives_byte_for_byte(host: Host, address: str, asked: bool) -> None:
    """But for the event of usage, which only they get who asked for it."""
    answer = ask(address, CHAT, stream=True, events=40, stream_options={"include_usage": asked})
    assert answer["content"].count("巴黎") == 40
    assert "\ufffd" not in answer["content"]
    assert answer["content"].count("data: ") == 41 + asked
    assert ('"choices":[]' in answer["content"]) == asked
    assert answer["content"].count("data: [DONE]") == 1
    entry = logged(host, answer)
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["usage"]) == (11, 5, "engine")
    assert 0 <= float(entry["ttft"]) <= entry["seconds"]


def test_who_hangs_up_has_used_what_was_sent(host: Host, address: str) -> None:
    left = stream_open(address, secret("leaver"), events=40, pause=0.1)
    threading.Event().wait(1.5)
    left.close()
    for _ in range(50):
        remaining = int(ask(address, MODELS, key=secret("leaver"))["headers"]["x-ratelimit-remaining-tokens"])
        if remaining < 4000:
            break
    assert 4000 - 40 <= remaining <= 4000 - 5


def test_requests_at_a_time(address: str) -> None:
    held = stream_open(address, secret("single"), events=20, pause=0.1)
    refused = ask(address, CHAT, key=secret("single"))
    assert (refused["status"], code(refused)) == (429, "rate_limit_exceeded")
    assert ask(address, CHAT)["status"] == 200  # another key's
    assert rest(held).rstrip().endswith("data: [DONE]\n\n\r\n0".rstrip())
    assert ask(address, CHAT, key=secret("single"))["status"] == 200


def test_requests_at_a_time_of_a_model(address: str) -> None:
    held = [stream_open(address, name, f"/large{CHAT}", events=20, pause=0.1) for name in (ALICE, secret("future"))]
    assert ask(address, f"/large{CHAT}")["status"] == 429
    assert ask(address, f"/small{CHAT}")["status"] == 200
    for opened in held:
        assert "[DONE]" in rest(opened)
    assert ask(address, f"/large{CHAT}")["status"] == 200


def test_a_check_that_fails_lets_nobody_in(host: Host, address: str) -> None:
    """A record that cannot be read: the answer is 500, and the engine sees nothing."""
    host.check_output(f'cp -a {KEYS} /root/keys.conf && sed -i \'s/{{"digest"/{{digest"/\' {KEYS} && nginx -s reload')
    try:
        for _ in range(50):
            before = count(host)
            answer = ask(address, MODELS)
            if answer["status"] == 500:
                break
        assert (answer["status"], code(answer)) == (500, "gateway_error")
        assert count(host) == before
    finally:
        host.check_output(f"mv /root/keys.conf {KEYS} && nginx -s reload")


def test_no_key_is_on_the_host(host: Host) -> None:
    for secret_text in (ALICE, BOB, secret("three")):
        pattern = f'"$(echo {secret_text[::-1]} | rev)"'
        assert host.run(f"grep -rlF -e {pattern} /etc /var/lib/redoubt /var/log /run/log").stdout.split() == []
    assert host.file(KEYS).mode == 0o600


def test_revoked_key_ends_no_stream_and_begins_none(address: str, play: Play) -> None:
    held = stream_open(address, BOB, events=300, pause=0.1)
    run = play(gateway_api_keys=[{"name": "alice", "key": ALICE}])
    assert (run.status, run.changed) == (0, 1)
    assert ask(address, MODELS, key=BOB)["status"] == 401
    body = rest(held)
    assert "[DONE]" in body
    assert body.count("巴黎") >= 290


def test_ten_thousand_keys(host: Host, address: str, play: Play) -> None:
    many = [{"name": f"client-{number}", "digest": f"sha256:{number:064x}"} for number in range(10_000)]
    # Digests that differ in their heads, as real ones do.
    many = [{**entry, "digest": "sha256:" + entry["digest"].removeprefix("sha256:")[::-1]} for entry in many]
    assert play(gateway_api_keys=[{"name": "alice", "key": ALICE}], gateway_issued_keys=many).status == 0
    assert host.file(KEYS).content_string.count('"name"') == 10_001
    assert ask(address, MODELS)["status"] == 200
    assert ask(address, MODELS, key=BOB)["status"] == 401
    assert play().status == 0
    assert ask(address, MODELS, key=BOB)["status"] == 200
