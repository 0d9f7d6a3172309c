# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the gateway role about certificates: what is wrong with given files, what a host's own need.

Pure functions over PEM texts; nothing is read or written. `now` is given by tests only.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SECTION = re.compile(r"^@(\S+)(?: (\S+) (\S+))?$")


def _public_pem(key: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_bytes(serialization.Encoding.PEM, form).decode())


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def _covers(patterns: list[str], name: str) -> bool:
    parent = name.partition(".")[2]
    return name in patterns or (bool(parent) and f"*.{parent}" in patterns)


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _chain_problems(chain: list[x509.Certificate], ca_pem: str) -> list[str]:
    problems = []
    for index, (child, parent) in enumerate(pairwise(chain)):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature):
            problems.append(
                f"gateway_tls_certificate: certificate {index + 2} of the file did not issue certificate "
                f"{index + 1} - order them: server first, then each issuer"
            )
    if not ca_pem:
        return problems
    try:
        anchors = x509.load_pem_x509_certificates(ca_pem.encode())
    except ValueError as error:
        return [*problems, f"gateway_tls_ca: holds no certificate ({error})"]
    for anchor in anchors:
        try:
            chain[-1].verify_directly_issued_by(anchor)
        except (ValueError, TypeError, InvalidSignature):
            if chain[-1] != anchor:
                continue
        return problems
    return [*problems, "gateway_tls_ca: did not issue the (last) certificate of gateway_tls_certificate"]


def _leaf_problems(leaf: x509.Certificate, names: list[str], now: datetime) -> list[str]:
    problems = []
    if now > leaf.not_valid_after_utc:
        problems.append(f"gateway_tls_certificate: expired on {_date(leaf.not_valid_after_utc)} - give a renewed one")
    if now < leaf.not_valid_before_utc:
        problems.append(
            f"gateway_tls_certificate: not valid before {_date(leaf.not_valid_before_utc)} - "
            "check the clock of this machine, or give another one"
        )
    covered = _names_of(leaf)
    problems += [
        f"gateway_tls_certificate: does not cover the name {name!r} of gateway_server_names "
        f"(it covers {', '.join(covered) or 'no DNS name'})"
        for name in names
        if not _covers(covered, name.lower())
    ]
    public = leaf.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048:
        problems.append(f"gateway_tls_certificate: an RSA key of {public.key_size} bits is too short (2048)")
    return problems


def gateway_tls_problems(
    certificate_pem: str | None,
    key_pem: str | None,
    names: list[str],
    ca_pem: str | None = "",
    now: datetime | None = None,
) -> list[str]:
    """What is wrong with a certificate (chain) and key given for the server names; empty when all is well.

    Missing, unreadable, mismatched, expired, not yet valid, wrong names, broken chain. The key is never quoted.
    """
    problems = []
    if not certificate_pem:
        problems.append("gateway_tls_certificate: missing - give PEM text, or the path of a file on this machine")
    if not key_pem:
        problems.append("gateway_tls_key: missing - give PEM text, or the path of a file on this machine")
    chain: list[x509.Certificate] = []
    key: Any = None
    if certificate_pem:
        try:
            chain = x509.load_pem_x509_certificates(certificate_pem.encode())
        except ValueError as error:
            problems.append(f"gateway_tls_certificate: holds no PEM certificate ({error})")
    if key_pem:
        try:
            key = serialization.load_pem_private_key(key_pem.encode(), password=None)
        except TypeError:
            problems.append("gateway_tls_key: has a passphrase; Nginx could not start unattended - remove it")
        except (ValueError, UnsupportedAlgorithm):
            problems.append("gateway_tls_key: holds no PEM private key")
    if chain:
        problems += _leaf_problems(chain[0], names, now or datetime.now(UTC))
        problems += _chain_problems(chain, ca_pem or "")
    if chain and key is not None and _public_pem(key.public_key()) != _public_pem(chain[0].public_key()):
        problems.append("gateway_tls_key: does not belong to gateway_tls_certificate - give the pair made together")
    return problems


def gateway_host_state(text: str) -> dict[str, Any]:
    """What the role's look at a host printed: {versions, packages, njs, ipv6, files: {name: {mode, owner, text}}}.

    The look prints sections `@name [mode owner]`, each followed by the section's lines.
    """
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {"text": ""}
    for line in text.splitlines():
        header = SECTION.match(line)
        if header:
            current = {"mode": header[2] or "", "owner": header[3] or "", "text": ""}
            sections[header[1]] = current
        else:
            current["text"] += line + "\n"

    def version(section: str, pattern: str) -> str:
        found = re.findall(pattern, sections.get(section, {}).get("text", ""))
        return str(found[-1]) if found else ""

    return {
        "nginx": version("nginx", r"nginx version: \S+?/([0-9.]+)"),
        "openssl": version("nginx", r"(?:built|running) with OpenSSL ([0-9.]+)"),
        "packages": sections.get("packages", {}).get("text", "").split(),
        "njs": sections.get("njs", {}).get("text", "").splitlines(),
        "ipv6": bool(sections.get("ipv6", {}).get("text", "").strip()),
        "files": {name: value for name, value in sections.items() if "." in name},
    }


def _load(state: dict[str, Any], name: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(state["files"].get(name, {}).get("text", "").encode())
    except ValueError:
        return None


def _matches(state: dict[str, Any], key_name: str, certificate: x509.Certificate) -> bool:
    """Whether the public half of a key on the host, as printed by the look, belongs to the certificate."""
    printed = state["files"].get(key_name, {}).get("text", "")
    return bool(printed.strip() == _public_pem(certificate.public_key()).strip())


def gateway_ca_verdict(
    state: dict[str, Any], names: list[str], renew_days: int, now: datetime | None = None
) -> dict[str, Any]:
    """What the private CA on a host needs: {problems, reasons, leaf, fingerprint, ca}.

    `problems` stop the run (a CA that clients trust is never replaced silently); `reasons` say why something
    must be made or mended; `leaf` tells whether the server's certificate must be issued (again).
    """
    moment = (now or datetime.now(UTC)) + timedelta(days=renew_days)
    ca, leaf = _load(state, "ca.crt"), _load(state, "server.crt")
    problems: list[str] = []
    reasons: list[str] = []
    leaf_reasons: list[str] = []
    if ca is None:
        leaf_reasons.append("there is no private CA yet")
    else:
        if not _matches(state, "ca.key", ca):
            problems.append(
                "/etc/redoubt/tls/ca.key: missing or not the key of ca.crt - restore it from the backup; or remove "
                "ca.crt to make a new CA, which every client must then be told to trust"
            )
        if moment > ca.not_valid_after_utc:
            problems.append(
                f"/etc/redoubt/tls/ca.crt: ends on {_date(ca.not_valid_after_utc)} - remove ca.crt and ca.key to "
                "make a new CA, and tell every client to trust it"
            )
    if leaf is None:
        leaf_reasons.append("there is no server certificate yet")
    else:
        if moment > leaf.not_valid_after_utc:
            leaf_reasons.append(f"the server certificate ends on {_date(leaf.not_valid_after_utc)}")
        if sorted(_names_of(leaf)) != sorted(name.lower() for name in names):
            leaf_reasons.append(f"the server certificate is for {', '.join(_names_of(leaf)) or 'no name'}")
        if not _matches(state, "server.key", leaf):
            leaf_reasons.append("the server key is missing or does not belong to the certificate")
        if ca is not None:
            try:
                leaf.verify_directly_issued_by(ca)
            except (ValueError, TypeError, InvalidSignature):
                leaf_reasons.append("the server certificate is not from this CA")
    for name, mode in (("ca.key", "600"), ("server.key", "600"), ("ca.crt", "644"), ("server.crt", "644")):
        file = state["files"].get(name, {})
        if file.get("mode") and (file["mode"], file["owner"]) != (mode, "root:root"):
            reasons.append(f"{name} is {file['mode']} {file['owner']}")
    return {
        "problems": problems,
        "reasons": leaf_reasons + reasons,
        "leaf": bool(leaf_reasons),
        "fingerprint": leaf.fingerprint(hashes.SHA256()).hex() if leaf else "",
        "ca": state["files"].get("ca.crt", {}).get("text", "") if ca else "",
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {
            "gateway_tls_problems": gateway_tls_problems,
            "gateway_host_state": gateway_host_state,
            "gateway_ca_verdict": gateway_ca_verdict,
        }
