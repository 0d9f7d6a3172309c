"""Certificates: given files are refused for each fault; a host's own CA is mended and never replaced silently."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from filter_plugins.gateway_tls import gateway_ca_verdict, gateway_host_state, gateway_tls_problems

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = ["redoubt.lab", "llm.example.org"]


class Party:
    """A key with its certificate, from itself or from an issuer."""

    def __init__(
        self,
        name: str,
        issuer: Party | None = None,
        names: list[str] | None = None,
        days: int = 100,
        start: datetime = NOW - timedelta(days=1),
        key: Any = None,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names is not None:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(item) for item in names])
            builder = builder.add_extension(alternatives, critical=False)
        self.certificate = builder.sign((issuer or self).key, hashes.SHA256())

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self, password: bytes | None = None) -> str:
        encryption: Any = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        form = serialization.PrivateFormat.PKCS8
        return str(self.key.private_bytes(serialization.Encoding.PEM, form, encryption).decode())

    @property
    def public_pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return str(self.key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


CA = Party("root", days=3650)
MIDDLE = Party("middle", CA, days=1000)
GOOD = Party("redoubt.lab", CA, NAMES)


def problems(certificate: str, key: str, ca: str = "", names: list[str] | None = None) -> list[str]:
    return gateway_tls_problems(certificate, key, names or NAMES, ca, now=NOW)


def test_good_pairs_pass() -> None:
    assert problems(GOOD.pem, GOOD.key_pem(), CA.pem) == []
    leaf = Party("redoubt.lab", MIDDLE, ["redoubt.lab", "*.example.org"])
    assert problems(leaf.pem + MIDDLE.pem, leaf.key_pem(), CA.pem) == []
    assert problems(leaf.pem + MIDDLE.pem + CA.pem, leaf.key_pem(), CA.pem) == []


@pytest.mark.parametrize(
    ("certificate", "key", "ca", "wanted"),
    [
        ("", GOOD.key_pem(), "", "gateway_tls_certificate: missing"),
        (GOOD.pem, "", "", "gateway_tls_key: missing"),
        ("rubbish", GOOD.key_pem(), "", "holds no PEM certificate"),
        (GOOD.pem, "rubbish", "", "gateway_tls_key: holds no PEM private key"),
        (GOOD.pem, GOOD.key_pem(b"secret"), "", "has a passphrase"),
        (GOOD.pem, CA.key_pem(), "", "gateway_tls_key: does not belong"),
        (GOOD.pem, GOOD.key_pem(), MIDDLE.pem, "gateway_tls_ca: did not issue"),
        (GOOD.pem, GOOD.key_pem(), "rubbish", "gateway_tls_ca: holds no certificate"),
        (GOOD.pem + MIDDLE.pem, GOOD.key_pem(), "", "did not issue certificate 1"),
    ],
)
def test_bad_pair_is_refused(certificate: str, key: str, ca: str, wanted: str) -> None:
    found = problems(certificate, key, ca)
    assert any(wanted in line for line in found), found
    assert GOOD.key_pem().splitlines()[1] not in "\n".join(found)


def test_expired_and_not_yet_valid_certificates_are_refused() -> None:
    old = Party("old", CA, NAMES, days=30, start=NOW - timedelta(days=31))
    early = Party("early", CA, NAMES, start=NOW + timedelta(days=1))
    assert problems(old.pem, old.key_pem()) == [
        "gateway_tls_certificate: expired on 2026-11-21 12:00 UTC - give a renewed one"
    ]
    assert "not valid before 2026-11-23" in problems(early.pem, early.key_pem())[0]


def test_uncovered_names_and_short_keys_are_refused() -> None:
    found = problems(GOOD.pem, GOOD.key_pem(), names=["other.org"])
    assert found == [
        "gateway_tls_certificate: does not cover the name 'other.org' of gateway_server_names "
        "(it covers redoubt.lab, llm.example.org)"
    ]
    wild = Party("w", CA, ["*.example.org"])
    assert len(problems(wild.pem, wild.key_pem(), names=["a.b.example.org", "example.org"])) == 2
    weak = Party("weak", CA, NAMES, key=rsa.generate_private_key(65537, 1024))  # noqa: S505 - weak on purpose
    assert "1024 bits" in problems(weak.pem, weak.key_pem())[0]


def look(**changes: tuple[str, str] | None) -> dict[str, Any]:
    """What the role's look prints for a healthy host, with changes {file: (header, text) or None}."""
    sections: dict[str, tuple[str, str] | None] = {
        "ca_crt": ("ca.crt 644 root:root", CA.pem),
        "server_crt": ("server.crt 644 root:root", GOOD.pem),
        "ca_key": ("ca.key 600 root:root", CA.public_pem),
        "server_key": ("server.key 600 root:root", GOOD.public_pem),
        **changes,
    }
    text = "@packages\nnginx\nopenssl\n@nginx\nnginx version: nginx/1.26.3\n"
    text += "built with OpenSSL 3.5.0 (running with OpenSSL 3.5.1 x)\n@njs\nshared memory\ninstalled\n@ipv6\n"
    text += "".join(f"@{item[0]}\n{item[1]}" for item in sections.values() if item)
    return gateway_host_state(text)


def verdict(days: int = 30, names: list[str] | None = None, **changes: tuple[str, str] | None) -> dict[str, Any]:
    return gateway_ca_verdict(look(**changes), names or NAMES, days, now=NOW)


def test_state_is_read() -> None:
    state = look()
    assert (state["nginx"], state["openssl"], state["ipv6"]) == ("1.26.3", "3.5.1", False)
    assert state["packages"] == ["nginx", "openssl"]
    assert state["njs"] == ["shared memory", "installed"]
    nothing = {"nginx": "", "openssl": "", "packages": [], "njs": [], "ipv6": False, "files": {}}
    assert gateway_host_state("") == nothing


def test_healthy_host_needs_nothing() -> None:
    result = verdict()
    assert (result["problems"], result["reasons"], result["leaf"]) == ([], [], False)
    assert result["fingerprint"] == GOOD.certificate.fingerprint(hashes.SHA256()).hex()
    assert result["ca"].strip() == CA.pem.strip()


def test_empty_host_needs_everything() -> None:
    result = gateway_ca_verdict(gateway_host_state(""), NAMES, 30, now=NOW)
    assert result["problems"] == []
    assert result["leaf"] is True
    assert len(result["reasons"]) == 2


@pytest.mark.parametrize(
    ("changes", "names", "days", "wanted"),
    [
        ({}, NAMES, 100, "the server certificate ends on"),
        ({}, ["redoubt.lab"], 30, "the server certificate is for"),
        ({"server_key": None}, NAMES, 30, "the server key is missing"),
        ({"server_key": ("server.key 600 root:root", CA.public_pem)}, NAMES, 30, "does not belong"),
        ({"server_crt": None}, NAMES, 30, "there is no server certificate"),
        (
            {
                "server_crt": ("server.crt 644 root:root", Party("x", MIDDLE, NAMES, key=GOOD.key).pem),
            },
            NAMES,
            30,
            "not from this CA",
        ),
    ],
)
def test_server_certificate_is_issued_again(changes: dict[str, Any], names: list[str], days: int, wanted: str) -> None:
    result = verdict(days, names, **changes)
    assert result["problems"] == []
    assert result["leaf"] is True
    assert any(wanted in reason for reason in result["reasons"])


def test_open_key_is_mended_without_a_new_certificate() -> None:
    result = verdict(ca_key=("ca.key 644 root:root", CA.public_pem))
    assert (result["problems"], result["leaf"]) == ([], False)
    assert result["reasons"] == ["ca.key is 644 root:root"]


def test_ca_that_clients_trust_is_never_replaced_silently() -> None:
    assert "ca.key: missing" in verdict(ca_key=None)["problems"][0]
    assert "not the key" in verdict(ca_key=("ca.key 600 root:root", GOOD.public_pem))["problems"][0]
    assert "ca.crt: ends on" in verdict(days=4000)["problems"][0]
