"""Pages for people whom an OIDC proxy (here a stub) signs in: asked each time, and nobody answers in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE
from tests.support.people_client import ANNA, basic, client, look, seen

STUB = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/support/stub_oidc_proxy.py")
UNIT = "stub-oidc-proxy"


def begin(host: Host) -> None:
    host.check_output("systemd-run --quiet --collect --unit %s python3 -c %s 4180", UNIT, STUB.read_text())
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :4180 && exit 0; sleep 0.1; done; exit 1")


@pytest.fixture(scope="module", autouse=True)
def proxy(host: Host) -> Iterator[None]:
    begin(host)
    yield
    host.check_output("systemctl stop %s", UNIT)


def test_who_is_signed_in_sees_the_page(host: Host, address: str) -> None:
    answer = look(address, "/wiki/start?x=1", headers={"Cookie": "session=anna; theme=dark", "X-WEBAUTH-USER": "admin"})
    request = seen(answer)
    assert request["line"] == "GET /start?x=1 HTTP/1.1"
    assert request["headers"]["x-webauth-user"] == "anna"
    assert answer["headers"]["content-security-policy"] == "frame-ancestors 'self'"
    assert client(host, answer) == "people:anna"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": "session="},
        {"Cookie": "theme=dark"},
        basic(ANNA),
        {"Authorization": f"Bearer {ALICE}"},
        {"X-API-Key": ALICE},
        {"X-Auth-Request-User": "anna", "X-WEBAUTH-USER": "anna", "X-Forwarded-User": "anna"},
    ],
)
def test_who_is_not_is_sent_to_sign_in(host: Host, address: str, headers: dict[str, str]) -> None:
    answer = look(address, "/wiki/start", headers=headers)
    assert answer["status"] == 302
    assert answer["headers"]["location"].endswith("/oauth2/start?rd=/wiki/")
    assert client(host, answer) == ""


def test_signing_in_leads_back_to_the_page(address: str) -> None:
    answer = look(address, "/oauth2/start?rd=/wiki/")
    assert (answer["status"], answer["headers"]["location"]) == (302, "/wiki/")
    cookie = answer["headers"]["set-cookie"].split(";")[0]
    assert seen(look(address, "/wiki/", headers={"Cookie": cookie}))["headers"]["x-webauth-user"] == "anna"


@pytest.mark.parametrize(("groups", "status"), [("", 403), ("users", 403), ("users.team-1", 200), ("ops", 200)])
def test_groups_are_the_proxys_word(address: str, groups: str, status: int) -> None:
    """Also where the client asks for others."""
    cookie = {"Cookie": f"session=anna; groups={groups}"}
    assert look(address, "/ops/?allowed_groups=users", headers=cookie)["status"] == status


def test_proxy_learns_no_password_no_key_and_no_body(address: str) -> None:
    given = {**basic(ANNA), "X-API-Key": ALICE, "Cookie": "session=anna", "X-Forwarded-For": "1.2.3.4"}
    assert look(address, "/wiki/", "POST", {**given, "Content-Length": "5"}, body="12345")["status"] == 200
    question = json.loads(look(address, "/oauth2/seen")["content"])
    assert question["line"] == "GET /oauth2/auth HTTP/1.0" or question["line"] == "GET /oauth2/auth HTTP/1.1"
    assert not {"authorization", "x-api-key", "content-length", "x-webauth-user"} & set(question["headers"])
    assert "1.2.3.4" not in json.dumps(question)


@pytest.mark.parametrize("path", ["/-/people/4", "/-/people/5", "/-/people/4?x", "/-/people/"])
def test_question_is_not_for_clients(address: str, path: str) -> None:
    assert look(address, path, headers={"Cookie": "session=anna"})["status"] == 404


def test_a_proxy_that_fails_lets_nobody_in(host: Host, address: str) -> None:
    for stopped in (False, True):
        if stopped:
            host.check_output("systemctl stop %s", UNIT)
        answer = look(address, "/wiki/", headers={"Cookie": "session=broken"})
        assert answer["status"] == 500
        assert '"line"' not in answer["content"]
    begin(host)
    assert seen(look(address, "/wiki/", headers={"Cookie": "session=anna"}))


def test_signed_in_people_have_no_other_page_and_no_route(address: str) -> None:
    cookie = {"Cookie": "session=anna; groups=ops"}
    assert look(address, "/grafana/", headers=cookie)["status"] == 401
    assert look(address, "/v1/models", headers=cookie)["status"] == 401
