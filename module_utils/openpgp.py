# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of the keys in an OpenPGP key file, without GnuPG. Standard library only, Python 3.9+."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator

PUBLIC_KEY = 6


def dearmour(data: bytes) -> bytes:
    """The binary packets of an armoured or binary key file. Raises ValueError for broken armour."""
    if not data.lstrip().startswith(b"-----BEGIN"):
        return data
    packets = b""
    body: list[bytes] | None = None
    in_headers = False
    for raw in data.splitlines():
        line = raw.strip()
        if line.startswith(b"-----BEGIN"):
            body, in_headers = [], True
        elif line.startswith(b"-----END"):
            try:
                packets += base64.b64decode(b"".join(body or []), validate=True)
            except binascii.Error as error:
                raise ValueError(f"the armour is broken: {error}") from error
            body = None
        elif body is not None and in_headers:
            in_headers = bool(line)  # headers end at the first empty line
        elif body is not None and not line.startswith(b"="):  # "=abcd" is the armour's checksum
            body.append(line)
    return packets


def armour(data: bytes) -> bytes:
    """The key file in armour, which is what apt expects under a name ending in .asc."""
    if data.lstrip().startswith(b"-----BEGIN"):
        return data
    text = base64.b64encode(data)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    frame = b"PGP PUBLIC KEY BLOCK-----"
    return b"\n".join([b"-----BEGIN " + frame, b"", *lines, b"-----END " + frame, b""])


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each packet in turn. Raises ValueError for what is no OpenPGP data."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError(f"byte {at} does not begin an OpenPGP packet")
        try:
            if head & 0x40:
                tag, (length, start) = head & 0x3F, _new_length(data, at + 1)
            else:
                tag, size = (head >> 2) & 0x0F, (1, 2, 4, 0)[head & 0x03]
                if not size:
                    raise ValueError("a packet of unknown length is not accepted in a key file")
                length, start = int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size
        except IndexError:
            raise ValueError("the key file ends inside a packet") from None
        if start + length > len(data):
            raise ValueError("the key file ends inside a packet")
        yield tag, data[start : start + length]
        at = start + length


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + data[at + 1] + 192, at + 2
    if first == 255:
        return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    raise ValueError("a packet in parts is not accepted in a key file")


def fingerprint(body: bytes) -> str:
    """Fingerprint (upper-case hex) of a key packet. Raises ValueError for a version whose fingerprint is not known."""
    version = body[0] if body else 0
    if version == 4:
        # SHA-1 is the format's own definition of a version 4 fingerprint, not a choice made here.
        digest = hashlib.new("sha1", usedforsecurity=False)
        digest.update(b"\x99" + len(body).to_bytes(2, "big") + body)
    elif version == 6:
        digest = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body)
    else:
        raise ValueError(f"a key of version {version} is not accepted")
    return digest.hexdigest().upper()


def fingerprints(data: bytes) -> list[str]:
    """Fingerprints (upper-case hex) of the primary keys in a key file.

    Raises ValueError when there is no key in it, or one of a version whose fingerprint is not known here.
    """
    found = [fingerprint(body) for tag, body in packets(dearmour(data)) if tag == PUBLIC_KEY]
    if not found:
        raise ValueError("there is no public key in the file")
    return found
