"""The depot's CA and certificate: made once, renewed in time, never a CA replaced that hosts trust."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.depot.certificate import Certificate

from filter_plugins.depot import depot_problems
from tests.support import programs

GOOD = {
    "depot_address": "10.0.0.5",
    "depot_server_names": [],
    "depot_allowed_cidrs": ["10.0.0.0/24"],
    "depot_listen_addresses": ["0.0.0.0"],  # noqa: S104 - the role's default
    "depot_port": 8443,
    "depot_directory": "/srv/redoubt/depot",
    "depot_tls_certificate_days": 397,
    "depot_tls_renew_days": 30,
}


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    programs.client("openssl", "openssl")
    certificate = Certificate(["127.0.0.1", "depot.example.org", "fd00::1"], folder=tmp_path / "tls")
    assert certificate.ensure() == ["there is no CA yet"]
    return certificate


def greeted(certificate: Certificate, name: str) -> None:
    """Shake hands as a strict client does. Raises ssl.SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.path("server.crt"), certificate.path("server.key"))
    client = ssl.create_default_context(cafile=str(certificate.path("ca.crt")))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(near, server_hostname=name).close()
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "depot.example.org", "fd00::1"])
def test_a_strict_client_accepts_each_name(made: Certificate, name: str) -> None:
    greeted(made, name)


def test_a_client_refuses_another_name(made: Certificate) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(made, "127.0.0.2")


def test_the_second_time_nothing_is_made(made: Certificate) -> None:
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    assert sorted(before) == ["ca.crt", "ca.key", "server.crt", "server.key"]
    assert made.ensure() == []
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == before
    for name in ("ca.key", "server.key"):
        assert made.path(name).stat().st_mode & 0o777 == 0o600
    assert made.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": ["127.0.0.9"]}, "not for 127.0.0.9"),
        ({"names": ["127.0.0.1", "depot.example.org"]}, "not for 127.0.0.1, depot"),
        ({"days": 900, "renew_days": 500}, "ends within 500 days"),
    ],
)
def test_the_servers_certificate_is_renewed_and_the_ca_stays(
    made: Certificate, change: dict[str, object], reason: str
) -> None:
    ca = made.path("ca.crt").read_bytes()
    later = replace(made, **change)
    found = later.ensure()
    assert len(found) == 1 and reason in found[0]
    assert later.ensure() == [] and made.path("ca.crt").read_bytes() == ca
    greeted(later, "127.0.0.9" if "127.0.0.9" in later.names else "127.0.0.1")


@pytest.mark.parametrize("name", ["server.crt", "server.key"])
def test_a_lost_file_of_the_server_is_made_again(made: Certificate, name: str) -> None:
    made.path(name).unlink()
    assert len(made.ensure()) == 1
    greeted(made, "127.0.0.1")


def test_a_certificate_of_another_ca_is_replaced(made: Certificate, tmp_path: Path) -> None:
    other = replace(made, folder=tmp_path / "other")
    other.ensure()
    for name in ("server.crt", "server.key"):
        made.path(name).write_bytes(other.path(name).read_bytes())
    assert made.ensure() == ["the server's certificate is not from this CA"]
    greeted(made, "127.0.0.1")


def test_a_ca_whose_key_is_lost_is_never_replaced(made: Certificate) -> None:
    made.path("ca.key").unlink()
    before = made.path("ca.crt").read_bytes()
    with pytest.raises(Refusal, match=r"ca.key: missing or not the key of ca.crt; restore it"):
        made.ensure()
    assert made.path("ca.crt").read_bytes() == before and not made.path("ca.key").exists()


def test_a_ca_near_its_end_is_a_refusal(made: Certificate) -> None:
    with pytest.raises(Refusal, match=r"ca.crt: ends within 4000 days; remove ca.crt and ca.key"):
        replace(made, renew_days=4000).ensure()


def test_good_settings_have_no_problems() -> None:
    assert depot_problems(GOOD) == []
    assert depot_problems({**GOOD, "depot_address": "depot.example.org", "depot_server_names": ["fd00::1"]}) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("depot_address", "Depot_1", "neither an address nor a DNS name"),
        ("depot_address", "a\nb", "neither an address nor a DNS name"),
        ("depot_server_names", ["x y"], "depot_server_names: 'x y'"),
        ("depot_allowed_cidrs", [], "is empty, so no host"),
        ("depot_allowed_cidrs", None, "is empty, so no host"),
        ("depot_allowed_cidrs", ["10.0.0.1/24"], "is no network"),
        ("depot_allowed_cidrs", ["0.0.0.0/0"], "is everybody"),
        ("depot_allowed_cidrs", ["10.0.0.0/24; }"], "is no network"),
        ("depot_listen_addresses", [], "depot_listen_addresses: is empty"),
        ("depot_listen_addresses", ["eth0"], "'eth0' is no address"),
        ("depot_port", 0, "0 is no port"),
        ("depot_directory", "/srv/re doubt", "is not an absolute path"),
        ("depot_directory", "/srv/../etc", "is not an absolute path"),
        ("depot_tls_renew_days", 397, "must be at least 1 and below"),
    ],
)
def test_settings_that_cannot_work_are_named(name: str, value: object, text: str) -> None:
    problems = depot_problems({**GOOD, name: value})
    assert len(problems) == 1 and problems[0].startswith(f"{name}: ") and text in problems[0], problems
