"""What clients can and cannot do."""

from __future__ import annotations

import json
import socket
import ssl

import pytest

from tests.e2e.conftest import STRANGER
from tests.support.site import MODEL, SERVER_NAME, Site

KEYS = "playbooks/keys.yml"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def test_the_streamed_answer_is_right_and_comes_in_pieces(site: Site) -> None:
    pieces = list(site.stream("What is the capital of France?"))
    assert len(pieces) > 1
    assert "Paris" in "".join(pieces)


def test_a_key_opens_the_door_and_nothing_else_does(site: Site) -> None:
    assert site.ask("GET", "/v1/models").status == 200
    for key in (None, "sk-wrong", site.key[:-1], site.key + "0", site.key.upper()):
        answer = site.ask("POST", "/v1/chat/completions", CHAT, key=key)
        assert answer.status == 401, key
        assert answer.json()["error"]["message"]
    assert site.ask("GET", "/v1/models", key=None, headers={"Authorization": f"Basic {site.key}"}).status == 401


@pytest.mark.parametrize(
    "path", ["/metrics", "/invocations", "/docs", "/v1/load_lora_adapter", "//v1/models", "/v1/models/", "/V1/models"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_route_outside_the_list_does_not_exist(site: Site, method: str, path: str) -> None:
    answer = site.ask(method, path, CHAT if method == "POST" else None)
    assert answer.status == 404
    assert answer.json()["error"]["message"]


def _as_stranger(site: Site, python: str) -> str:
    """Run Python on the host outside the allowlist, with the CA and the right key at hand."""
    prelude = (
        f"import http.client, json, socket, ssl\nADDRESS={site.address!r}\nKEY={site.key!r}\nNAME={SERVER_NAME!r}\n"
    )
    ca = site.ca_file.read_text()
    return site.on(STRANGER, f"cat > /tmp/ca.crt <<'CA'\n{ca}\nCA\npython3 - <<'PY'\n{prelude}{python}\nPY\n").strip()


def test_a_source_outside_the_allowlist_is_forbidden_whatever_it_claims(site: Site) -> None:
    python = """
answers = []
for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}):
    connection = http.client.HTTPConnection(NAME, timeout=20)
    plain = socket.create_connection((ADDRESS, 443), timeout=20)
    connection.sock = ssl.create_default_context(cafile="/tmp/ca.crt").wrap_socket(plain, server_hostname=NAME)
    connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + KEY, **headers})
    answers.append(connection.getresponse().status)
print(json.dumps(answers))
"""
    assert json.loads(_as_stranger(site, python)) == [403, 403, 403, 403]


def test_only_the_gateway_can_be_reached_from_another_host(site: Site) -> None:
    python = """
open_ports = []
for port in [22, 80, 443, 8000, 8101, 8102, 9090, 9093, 9100, 9115, 3000, 2375, 2376, 8080]:
    try:
        socket.create_connection((ADDRESS, port), timeout=2).close()
        open_ports.append(port)
    except OSError:
        pass
print(json.dumps(open_ports))
"""
    assert set(json.loads(_as_stranger(site, python))) == {22, 80, 443}


def _handshake(site: Site, version: ssl.TLSVersion, name: str = SERVER_NAME) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(site.ca_file))
    context.set_ciphers("ALL:@SECLEVEL=0")  # the client is willing, so a refusal is the gateway's
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((site.address, 443), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.version() or ""


def test_only_tls_1_2_and_1_3_are_spoken(site: Site) -> None:
    assert _handshake(site, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert _handshake(site, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            _handshake(site, old)


def test_an_unknown_name_is_rejected_in_the_handshake(site: Site) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name|handshake"):
        _handshake(site, ssl.TLSVersion.TLSv1_3, "other.example")


def test_plain_http_leads_to_https(site: Site) -> None:
    with socket.create_connection((site.address, 80), timeout=20) as plain:
        plain.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {SERVER_NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = plain.makefile("rb").read().decode()
    assert answer.split()[1] in ("301", "308")
    assert f"https://{SERVER_NAME}/" in answer


def test_a_key_is_issued_turned_and_revoked(site: Site) -> None:
    file, to = site.folder / "host_vars" / f"{site.main}.yml", site.folder / "carol.key"
    places = ("-e", f"keys_file={file}", "-e", f"keys_to={to}")

    def status(key: str) -> int:
        return site.ask("POST", "/v1/chat/completions", CHAT, key=key).status

    run = site.play(KEYS, *places, "-e", "keys_issue=carol", "-e", json.dumps({"keys_limits": {"models": [MODEL]}}))
    assert run.status == 0, run.output
    first = to.read_text().strip()
    assert to.stat().st_mode & 0o777 == 0o600
    assert first not in run.output
    assert first not in file.read_text()
    assert status(first) == 200

    refused = site.play(KEYS, *places, "-e", "keys_issue=carol")
    assert refused.status != 0
    assert "has a key already" in refused.output
    wrong = site.play(KEYS, *places, "-e", "keys_issue=dave", "-e", json.dumps({"keys_limits": {"models": ["none"]}}))
    assert wrong.status != 0
    assert "dave" not in file.read_text()

    assert site.play(KEYS, *places, "-e", "keys_rotate=carol").status == 0
    second = to.read_text().strip()
    assert second != first
    assert (status(first), status(second)) == (200, 200)
    told = site.play(KEYS, *places)
    assert "carol: valid" in told.output
    assert "the key before valid until" in told.output
    assert sum(host["changed"] for host in told.recap().values()) == 0

    assert site.play(KEYS, *places, "-e", "keys_revoke=carol").status == 0
    assert (status(first), status(second), status(site.key)) == (401, 401, 200)
    file.unlink()
    assert site.play("playbooks/gateway.yml").status == 0
