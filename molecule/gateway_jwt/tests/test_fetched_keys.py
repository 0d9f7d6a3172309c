"""Keys that the gateway fetches by itself: renewed without a playbook, and never by anything that is not good."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ask, count
from tests.support.jwt_forged import forged
from tests.support.jwt_issuer import Issuer
from tests.support.plays import Play

MODELS = "/small/v1/models"
SERVED = "/srv/stub-issuer/www/keys.json"
STATE = "/var/lib/redoubt/jwks"
STUB = Path(__file__).resolve().parents[3] / "tests/support/stub_issuer.py"


@pytest.fixture(scope="module", autouse=True)
def issuer_site(host: Host) -> Iterator[None]:
    """The stub of the issuer's own site."""
    host.check_output(
        "systemd-run --quiet --collect --unit stub-issuer python3 -c %s 8444 /srv/stub-issuer", STUB.read_text()
    )
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :8444 && exit 0; sleep 0.1; done; exit 1")
    yield
    host.check_output("systemctl stop stub-issuer")


def serve(host: Host, document: object) -> None:
    text = base64.b64encode(json.dumps(document).encode()).decode()
    host.check_output(f"echo {text} | base64 -d > {SERVED}")


def fetch(host: Host) -> int:
    """Run the service as its timer does."""
    # Tests do it more often within 10 s than systemd lets a service begin.
    return int(host.run("systemctl reset-failed redoubt-jwks.service; systemctl start redoubt-jwks.service").rc)


def held(host: Host) -> list[str]:
    rows: list[dict[str, Any]] = json.loads(host.file(f"{STATE}/keys.json").content_string)
    return [key["kid"] for row in rows for key in row["keys"]]


def test_nobody_comes_in_before_keys_are_had_and_then_it_needs_no_reload(
    host: Host, address: str, remote: Issuer
) -> None:
    host.check_output(f"rm -f {STATE}/keys.json")
    assert ask(address, MODELS, key=remote.token())["status"] == 500
    workers = host.check_output("ps -o pid= --ppid $(cat /run/nginx.pid) | sort")
    assert fetch(host) == 0
    assert held(host) == ["remote-ES256", "remote-RS256"]
    for alg in ("ES256", "RS256"):
        assert ask(address, MODELS, key=remote.token(alg))["status"] == 200
    assert host.check_output("ps -o pid= --ppid $(cat /run/nginx.pid) | sort") == workers


def test_forged_ones_are_refused_here_as_well(host: Host, address: str, remote: Issuer, idp: Issuer) -> None:
    before = count(host)
    table = forged(remote, idp)
    assert [name for name, token in table.items() if ask(address, MODELS, key=token)["status"] != 401] == []
    assert count(host) == before
    assert ask(address, MODELS, key=remote.token())["status"] == 200


@pytest.mark.parametrize(
    "document", [{}, {"keys": []}, {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "remote-ES256"}]}]
)
def test_bad_document_changes_nothing(host: Host, address: str, remote: Issuer, document: object) -> None:
    serve(host, remote.jwks())
    assert fetch(host) == 0
    serve(host, document)
    assert fetch(host) != 0
    assert held(host) == ["remote-ES256", "remote-RS256"]
    assert ask(address, MODELS, key=remote.token())["status"] == 200
    assert "the last good keys stay" in host.check_output("journalctl -u redoubt-jwks -n 20 -o cat")
    status = json.loads(host.file(f"{STATE}/status.json").content_string)
    assert "8444" in status["issuers"]["remote"]["problem"]
    serve(host, remote.jwks())
    assert fetch(host) == 0


def test_withdrawn_key_ends_and_new_one_begins(host: Host, address: str, remote: Issuer) -> None:
    """New tokens of the old key at once, known ones soon; nothing is played."""
    renewed = Issuer("remote", {**Issuer("remote").keys, "RS256": remote.keys["RS256"]})
    known = remote.token()
    assert ask(address, MODELS, key=known)["status"] == 200
    assert ask(address, MODELS, key=renewed.token())["status"] == 401
    serve(host, renewed.jwks())
    assert fetch(host) == 0
    assert ask(address, MODELS, key=renewed.token())["status"] == 200
    assert ask(address, MODELS, key=remote.token("RS256"))["status"] == 200
    assert ask(address, MODELS, key=remote.token(sub="other"))["status"] == 401
    for _ in range(200):
        if ask(address, MODELS, key=known)["status"] == 401:
            break
        host.check_output("sleep 0.5")
    assert ask(address, MODELS, key=known)["status"] == 401
    serve(host, remote.jwks())
    assert fetch(host) == 0


def test_issuer_that_no_more_keys_are_fetched_of_leaves_no_timer(host: Host, remote: Issuer, play: Play) -> None:
    assert host.service("redoubt-jwks.timer").is_running
    given = {"name": "remote", "issuer": remote.url, "audience": "redoubt", "jwks": remote.jwks(), "rules": [{}]}
    assert play(gateway_jwt_issuers=[given]).status == 0
    assert not host.service("redoubt-jwks.timer").is_running
    assert not host.file("/etc/systemd/system/redoubt-jwks.timer").exists
    assert not host.file(f"{STATE}/keys.json").exists
    assert play().status == 0
    assert host.service("redoubt-jwks.timer").is_running
    assert host.service("redoubt-jwks.timer").is_enabled
