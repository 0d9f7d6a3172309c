"""A bad configuration is red and leaves the old one running; a lost reload is made up for; certificates live on."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from testinfra.host import Host

from tests.support.plays import Play
from tests.support.raw_http import context, exchange, written

KEY = "sk-Alice-0123456789abcdef0123456789abcdef0123456789abcd"
CHAT = "/v1/chat/completions"
CONF = "/etc/nginx/nginx.conf"
STATE = "/var/lib/redoubt/config_sets"
# Not the seals of the audit log, which the gateway itself writes meanwhile.
LISTING = f"ls -lR --time-style=full-iso /etc/redoubt /etc/nginx {STATE}"
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
STUB = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/support/stub_engine.py")


@pytest.fixture(scope="module")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return str(document["all"]["hosts"]["molecule-gateway-restore"]["ansible_host"])


@pytest.fixture
def taken(host: Host) -> Iterator[int]:
    """A port that another program has."""
    host.check_output("systemd-run --quiet --collect --unit squatter python3 -m http.server 8443")
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :8443 && exit 0; sleep 0.1; done; exit 1")
    yield 8443
    host.run("systemctl stop squatter")


@pytest.fixture
def endless(host: Host) -> Iterator[str]:
    """A stub engine whose streams go on until the file named here appears."""
    end = "/run/stub-engine-end"
    start = "systemd-run --quiet --collect --unit stub-engine python3 -c %s 8101 2000 " + end
    host.check_output("rm -f " + end)
    host.check_output(start, STUB.read_text())
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :8101 && exit 0; sleep 0.1; done; exit 1")
    yield end
    host.run("systemctl stop stub-engine")


def status(address: str, path: str = "/v1/models", key: str | None = KEY) -> int:
    return int(exchange(address, 443, written(path, key=key), context(), "redoubt.lab")["status"])


def shown(address: str) -> str:
    """The certificate that the gateway really shows."""
    with (
        socket.create_connection((address, 443), 10) as plain,
        context().wrap_socket(plain, server_hostname="redoubt.lab") as stream,
    ):
        return ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True) or b"")


def loaded(host: Host) -> str:
    """The generation that the running Nginx answers to; empty when it is not the one on disk."""
    name = re.findall(r"/generation/(\w+)", host.file(CONF).content_string)[0]
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8008/generation/%s').status)"
    return name if host.run("python3 -c %s", code % name).stdout.strip() == "204" else ""


def master(host: Host) -> str:
    return str(host.check_output("systemctl show -p MainPID --value nginx"))


def test_configuration_that_nginx_refuses_never_goes_live(host: Host, address: str, play: Play) -> None:
    before = (host.file(CONF).content_string, master(host))
    run = play(gateway_max_body_size="99999999999999999999g")
    assert run.status != 0
    assert "invalid value" in run.words
    assert "nothing live was changed" in run.words
    assert (host.file(CONF).content_string, master(host)) == before
    assert status(address) == 502


def test_reload_refused_in_silence_is_found_out_and_undone(host: Host, address: str, play: Play, taken: int) -> None:
    # nginx -t passes, the reload command succeeds, and the old configuration goes on: only the proof can tell.
    before = host.file(CONF).content_string
    run = play(gateway_http_port=taken, __gateway_proof_seconds=5)
    assert run.status != 0
    assert "/generation/" in run.words
    assert "the previous configuration is back and running" in run.words
    assert host.file(CONF).content_string == before
    assert loaded(host)
    assert status(address) == 502
    assert status(address, key=None) == 401
    host.check_output("systemctl stop squatter")
    run = play(gateway_http_port=taken)
    assert (run.status, run.changed) == (0, 1)
    assert exchange(address, taken, written("/"))["status"] == 308


def hsts(address: str) -> str:
    answer = exchange(address, 443, written("/healthz"), context(), "redoubt.lab")
    return str(answer["headers"]["strict-transport-security"])


def test_lost_reload_is_made_up_for(host: Host, address: str, play: Play) -> None:
    """A file on disk that is newer than what runs, as a run leaves it that died before its reload."""
    assert play(gateway_hsts_seconds=1234).status == 0
    newer, stamp = (host.file(name).content_string for name in (CONF, f"{STATE}/gateway.json"))
    # Once with the memory of the last run as such a run leaves it, once with one that says all is done.
    for forged in (False, True):
        assert play().status == 0
        host.check_output("printf %%s %s > %s", newer, CONF)
        if forged:
            host.check_output("printf %%s %s > %s", stamp, f"{STATE}/gateway.json")
        assert (loaded(host), hsts(address)) == ("", "max-age=63072000")
        run = play(gateway_hsts_seconds=1234)
        assert (run.status, run.changed) == (0, 1)
        assert hsts(address) == "max-age=1234"
        assert loaded(host)


def test_stopped_and_disabled_service_comes_back(host: Host, address: str, play: Play) -> None:
    host.check_output("systemctl disable --now nginx")
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert host.service("nginx").is_enabled
    assert status(address) == 502


def test_service_that_does_not_start_is_red(host: Host, play: Play) -> None:
    host.check_output("systemctl stop nginx; systemctl mask --runtime nginx")
    run = play()
    assert run.status != 0
    assert "nginx" in run.words
    host.check_output("systemctl unmask --runtime nginx")
    assert play().status == 0


def test_hand_edited_files_are_put_back(host: Host, play: Play) -> None:
    host.check_output("sed -i 's/default 0;/default 1;/' %s; chmod 0644 /etc/redoubt/gateway/keys.conf", CONF)
    host.check_output("systemctl reload nginx")
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert "default 1;\n        00 0;" in host.file(CONF).content_string
    assert host.file("/etc/redoubt/gateway/keys.conf").mode == 0o600
    assert loaded(host)


def test_reload_cuts_no_stream(host: Host, address: str, play: Play, endless: str) -> None:
    answers: list[dict[str, Any]] = []

    def read() -> None:
        request = written(CHAT, "POST", key=KEY, body="{}")
        answers.append(exchange(address, 443, request, context(), "redoubt.lab", timeout=300))

    reader = threading.Thread(target=read)
    before = master(host)
    reader.start()
    run = play(gateway_hsts_seconds=int(time.time()))  # a value that no earlier run had
    assert (run.status, run.changed) == (0, 1)
    assert reader.is_alive()
    host.check_output("touch %s", endless)
    reader.join(90)
    numbers = re.findall(r"data: (\d+)", answers[0]["body"])
    assert len(numbers) > 3
    assert numbers == [str(number) for number in range(len(numbers))]
    assert "data: [DONE]" in answers[0]["body"]
    assert answers[0]["body"].endswith("\r\n0\r\n\r\n")
    assert master(host) == before


def test_certificate_is_renewed_early_and_shown_without_a_restart(host: Host, address: str, play: Play) -> None:
    before, pid = shown(address), master(host)
    authority = host.file("/etc/redoubt/tls/ca.crt").content_string
    run = play(gateway_tls_certificate_days=500, gateway_tls_renew_days=450)
    assert run.status == 0
    assert shown(address) != before
    assert master(host) == pid
    assert host.file("/etc/redoubt/tls/ca.crt").content_string == authority


def test_lost_server_key_is_made_again_and_a_lost_ca_key_is_refused(host: Host, address: str, play: Play) -> None:
    host.check_output("rm /etc/redoubt/tls/server.key")
    assert play().status == 0
    assert status(address) == 502
    host.check_output("mv /etc/redoubt/tls/ca.key /var/tmp/ca.key")
    run = play()
    assert run.status != 0
    assert "restore it from the backup" in run.words
    host.check_output("mv /var/tmp/ca.key /etc/redoubt/tls/ca.key")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def pair(authority: trustme.CA, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """A certificate of another CA: as text, with the key as a file on this machine."""
    made = authority.issue_cert("redoubt.lab", **options)
    key = tmp_path / "server.key"
    made.private_key_pem.write_to_path(key)
    return {
        "gateway_tls_mode": "files",
        "gateway_tls_certificate": b"".join(blob.bytes() for blob in made.cert_chain_pems).decode(),
        "gateway_tls_key": str(key),
        "gateway_tls_ca": authority.cert_pem.bytes().decode(),
    }


def test_bad_given_files_are_refused_before_the_host_is_touched(
    host: Host, play: Play, authority: trustme.CA, tmp_path: Path
) -> None:
    good = pair(authority, tmp_path)
    other = authority.issue_cert("redoubt.lab").private_key_pem.bytes().decode()
    past = datetime.now(UTC) - timedelta(days=1)
    expired = pair(authority, tmp_path / "..", not_before=past - timedelta(days=30), not_after=past)
    foreign = authority.issue_cert("other.lab")
    certificate = foreign.cert_chain_pems[0].bytes().decode()
    before = host.check_output(LISTING)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        (
            {"gateway_tls_key": other, "gateway_tls_certificate": certificate},
            ["gateway_tls_key: does not belong", "does not cover the name 'redoubt.lab'"],
        ),
        (
            {"gateway_tls_key": str(tmp_path / "nowhere.key"), "gateway_tls_certificate": ""},
            ["gateway_tls_key: missing", "gateway_tls_certificate: missing"],
        ),
        (expired, ["gateway_tls_certificate: expired on"]),
    ]
    for change, wanted in cases:
        run = play(**{**good, **change})
        assert run.status != 0
        assert [text for text in wanted if text not in run.words] == []
        assert "PRIVATE KEY" not in run.text
    assert host.check_output(LISTING) == before


def test_given_files_are_used_and_taken_back(
    host: Host, address: str, play: Play, authority: trustme.CA, tmp_path: Path
) -> None:
    given = pair(authority, tmp_path)
    run = play(**given)
    assert (run.status, run.changed) == (0, 1)
    assert shown(address).strip() in given["gateway_tls_certificate"]
    assert host.file("/etc/redoubt/gateway/server.key").mode == 0o600
    assert "PRIVATE KEY" not in run.text
    assert play(**given).changed == 0
    assert play().status == 0
    assert shown(address).strip() not in given["gateway_tls_certificate"]


def test_it_serves_again_after_a_restart_of_the_service(host: Host, address: str) -> None:
    host.check_output("systemctl restart nginx")
    assert status(address) == 502
    assert loaded(host)
