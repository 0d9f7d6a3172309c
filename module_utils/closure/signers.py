# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Whose keys signed a repository: read from the signature that APT has verified. Pure, Python 3.9+."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ansible.module_utils.openpgp import PUBLIC_KEY, dearmour, fingerprint, packets

SIGNATURE, SUBKEY = 2, 14
ISSUER, ISSUER_FINGERPRINT = 16, 33
MARK = b"-----BEGIN PGP SIGNATURE-----"


def owners(keyrings: Iterable[bytes]) -> dict[str, str]:
    """Primary key by the fingerprint of each key and subkey; keyrings that cannot be read add nothing."""
    found: dict[str, str] = {}
    for data in keyrings:
        primary = ""
        try:
            for tag, body in packets(dearmour(data)):
                if tag == PUBLIC_KEY:
                    primary = fingerprint(body)
                if tag in (PUBLIC_KEY, SUBKEY) and primary:
                    found[fingerprint(body)] = primary
        except ValueError:
            continue
    return found


def issuers(signed: bytes) -> list[str]:
    """Fingerprints, or where there is none the 16 digits of the key's id, of who signed an InRelease or Release.gpg."""
    at = signed.find(MARK)
    try:
        bodies = [body for tag, body in packets(dearmour(signed[at:] if at >= 0 else signed)) if tag == SIGNATURE]
    except ValueError:
        return []
    found = []
    for body in bodies:
        said = dict(_subpackets(body)) if body[:1] == b"\x04" else {}
        if ISSUER_FINGERPRINT in said:
            found.append(said[ISSUER_FINGERPRINT][1:].hex().upper())
        elif ISSUER in said:
            found.append(said[ISSUER].hex().upper())
    return found


def _subpackets(body: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, content) of a version 4 signature's subpackets, hashed ones first."""
    at = 4
    for _ in range(2):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        at += 2
        while at < end:
            size, at = body[at], at + 1
            if size == 255:
                size, at = int.from_bytes(body[at : at + 4], "big"), at + 4
            elif size >= 192:
                size, at = ((size - 192) << 8) + body[at] + 192, at + 1
            if not size:
                return
            yield body[at] & 0x7F, body[at + 1 : at + size]
            at += size


def who_signed(signed: bytes, known: dict[str, str]) -> list[str]:
    """Fingerprints of the known primary keys that signed, sorted; `known` comes from owners()."""
    found = set()
    for issuer in issuers(signed):
        found |= {primary for key, primary in known.items() if key == issuer or key.endswith(issuer)}
    return sorted(found)
