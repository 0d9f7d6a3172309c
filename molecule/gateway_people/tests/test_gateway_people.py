"""Pages for people: who sees them, what they get to know, and that one way in opens no other."""

from __future__ import annotations

import json
import re

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE
from tests.support.people_client import ANNA, BEN, basic, client, look, seen
from tests.support.plays import Play
from tests.support.raw_http import context, exchange, written

PAGE = "/grafana/d/1?x=2"


@pytest.mark.parametrize("who", [ANNA, BEN])
def test_page_is_seen_with_a_password(host: Host, address: str, who: tuple[str, str]) -> None:
    """Of both kinds of hash; the page is told the name, and stands at its own root."""
    answer = look(address, PAGE, headers={**basic(who), "Cookie": "session=1", "Referer": "https://redoubt.lab/x"})
    request = seen(answer)
    assert request["line"] == "GET /d/1?x=2 HTTP/1.1"
    assert request["headers"]["x-webauth-user"] == who[0]
    assert request["headers"]["cookie"] == "session=1"
    assert client(host, answer) == f"people:{who[0]}"
    assert answer["headers"]["content-security-policy"] == "frame-ancestors 'self'"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic(("anna", "wrong")),
        basic(("anna", "")),
        basic(("", "correct horse")),
        basic(("Anna", "correct horse")),
        basic(("anna", "battery staple")),
        basic(("eve", "correct horse")),
        basic(("anna", "correct horse ")),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!"},
        {"Authorization": f"Bearer {ALICE}"},
        {"X-API-Key": ALICE},
        {"X-WEBAUTH-USER": "anna"},
        {"X-Forwarded-User": "anna", "X-Forwarded-For": "127.0.0.1"},
        {"Cookie": "session=1"},
    ],
)
def test_nobody_else_sees_it(host: Host, address: str, headers: dict[str, str]) -> None:
    answer = look(address, PAGE, headers=headers)
    assert answer["status"] == 401
    assert '"line"' not in answer["content"]
    assert answer["headers"]["www-authenticate"] == 'Basic realm="people"'
    assert client(host, answer) == ""


@pytest.mark.parametrize(
    "path",
    ["/grafana/", "//grafana/", "/grafana/../grafana/", "/%67rafana/x", "/grafana/./x", "/grafana/%2e%2e/prometheus/"],
)
def test_path_written_otherwise_is_asked_for_the_password_too(address: str, path: str) -> None:
    answer = look(address, path)
    assert answer["status"] in (401, 404)
    assert '"line"' not in answer["content"]


def test_page_learns_no_password_and_no_key(address: str) -> None:
    forged = {"X-WEBAUTH-USER": "admin", "X-Forwarded-User": "admin", "X-Real-IP": "1.2.3.4", "Upgrade": "websocket"}
    given = {**basic(ANNA), **forged, "X-API-Key": ALICE, "X-Forwarded-For": "1.2.3.4"}
    headers = seen(look(address, PAGE, headers=given))["headers"]
    assert headers["x-webauth-user"] == "anna"
    assert not {"authorization", "x-api-key", "x-forwarded-user", "upgrade"} & set(headers)
    assert "1.2.3.4" not in json.dumps(headers)


def test_page_is_for_those_it_names(address: str) -> None:
    assert seen(look(address, "/prometheus/graph", headers=basic(ANNA)))["line"] == "GET /graph HTTP/1.1"
    assert look(address, "/prometheus/graph", headers=basic(BEN))["status"] == 401
    assert look(address, "/prometheus/-/reload", "POST", headers=basic(ANNA))["status"] == 405


def test_page_is_for_addresses_that_it_names(address: str) -> None:
    assert look(address, "/far/", headers=basic(ANNA))["status"] == 403
    assert seen(look(address, "/near/", headers=basic(ANNA)))["line"] == "GET / HTTP/1.1"


def test_password_opens_no_route_of_the_engines(address: str) -> None:
    for path in ("/v1/models", "/small/v1/models", "/metrics"):
        answer = look(address, path, headers=basic(ANNA))
        assert answer["status"] in (401, 404)
        assert '"line"' not in answer["content"]
    answer = look(address, "/v1/models")
    assert (answer["status"], answer["headers"]["www-authenticate"]) == (401, 'Bearer realm="redoubt"')


def test_routes_are_as_they_were(host: Host, address: str) -> None:
    answer = look(address, "/v1/models", headers={"Authorization": f"Bearer {ALICE}"})
    assert seen(answer)["line"] == "GET /v1/models HTTP/1.1"
    assert client(host, answer) == "alice"
    assert answer["headers"]["content-security-policy"].startswith("default-src 'none'")


def test_passwords_cannot_be_tried_without_end(address: str) -> None:
    """At most 200 at once, with a little that time gives back meanwhile."""
    tries = "".join(written(PAGE, headers={**basic(("anna", str(n))), "Connection": "keep-alive"}) for n in range(400))
    last = written(PAGE, headers=basic(ANNA))
    answer = exchange(address, 443, tries + last, context(), "redoubt.lab", timeout=120)
    statuses = re.findall(r"HTTP/1\.1 (\d+) ", answer["body"])
    assert set(statuses) == {"401", "429"}
    assert statuses.count("401") < 350


def test_password_files_are_for_nginx_alone(host: Host) -> None:
    for index in range(4):
        file = host.file(f"/etc/nginx/redoubt_people_{index}.htpasswd")
        assert (file.mode, file.user, file.group) == (0o640, "root", "www-data")


def test_page_that_is_taken_away_leaves_no_password(host: Host, address: str, play: Play) -> None:
    run = play(gateway_people_pages=[], gateway_people_users=[])
    assert (run.status, run.changed) == (0, 1)
    assert host.run("ls /etc/nginx/*.htpasswd").rc != 0
    assert look(address, PAGE, headers=basic(ANNA))["status"] == 404
    assert play().status == 0


def test_page_over_a_route_is_refused(play: Play) -> None:
    run = play(gateway_people_pages=[{"path": "/v1/", "upstream": "127.0.0.1:3000"}])
    assert (run.status, run.changed) == (2, 0)
    assert "path /v1/ would stand over the route /v1/chat/completions" in run.words
