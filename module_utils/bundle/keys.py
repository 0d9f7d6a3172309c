# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Public keys and signatures in minisign's form (Ed25519 over BLAKE2b-512).

A public key may end: a word ``expires=2027-03-31`` in its comment line. That line is as trustworthy as the key below
it, since both came to the operator on the same way; a signature by an ended key does not count.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal

ALGORITHM, PREHASHED = b"Ed", b"ED"
UNTRUSTED, TRUSTED = "untrusted comment:", "trusted comment: "
EXPIRES = re.compile(r"(?:^|\s)expires=(\S+)")
KEY_BYTES, SIGNATURE_BYTES = 42, 74


@dataclass(frozen=True)
class PublicKey:
    """A key that may sign bundles: `id` as minisign prints it, `point` the key itself, `until` its last day."""

    name: str
    id: str
    point: bytes
    text: str
    until: datetime.date | None = None


@dataclass(frozen=True)
class Signature:
    """A signature file: who says to have signed, over the manifest and over the trusted comment."""

    id: str
    value: bytes
    comment: str
    whole: bytes


def parse_key(text: str, name: str) -> PublicKey:
    """Return a public key: a file's text, or its last line alone. Raises Refusal."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    comment = lines.pop(0) if len(lines) == 2 and lines[0].startswith(UNTRUSTED) else ""  # as in a file
    data = _decode(lines[0]) if len(lines) == 1 else b""
    if len(data) != KEY_BYTES or data[:2] != ALGORITHM:
        raise Refusal(f"{name}: is not a public key of minisign (a file NAME.pub, made by `minisign -G`)")
    return PublicKey(name, _key_id(data[2:10]), data[10:], lines[0], _last_day(comment, name))


def _last_day(comment: str, name: str) -> datetime.date | None:
    found = EXPIRES.search(comment)
    try:
        return datetime.date.fromisoformat(found.group(1)) if found else None
    except ValueError:
        raise Refusal(
            f"{name}: {found.group(0).strip() if found else ''} is no date such as expires=2027-03-31"
        ) from None


def read_keys(sources: Iterable[str | Path]) -> list[PublicKey]:
    """Return the keys of files, of folders (their *.pub), or written out themselves. Raises Refusal."""
    found: list[PublicKey] = []
    for source in sources:
        if "\n" in str(source).strip():
            found.append(parse_key(str(source), "the key that was given as text"))
            continue
        path = Path(source)
        try:
            if path.is_dir():
                files = sorted(path.glob("*.pub"))
                if not files:
                    raise Refusal(f"{path}: holds no public key (NAME.pub)")
                found += [parse_key(file.read_text(), str(file)) for file in files]
            elif not path.is_file() and len(_decode(str(source))) == KEY_BYTES:
                found.append(parse_key(str(source), str(source)))
            else:
                found.append(parse_key(path.read_text(), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            text = error.strerror if isinstance(error, OSError) else "is not text"
            raise Refusal(f"{source}: {text}; name a public key's file, or a folder with some") from None
    if not found:
        raise Refusal("nobody's signature is trusted: name a public key with --key FILE, or a folder of them")
    return found


def parse_signature(text: str, name: str) -> Signature:
    """Return a signature file's content. Raises Refusal."""
    lines = text.splitlines()
    data = _decode(lines[1]) if len(lines) == 4 else b""  # two comments, two signatures
    whole = _decode(lines[3]) if data else b""
    if len(data) != SIGNATURE_BYTES or len(whole) != SIGNATURE_BYTES - 10 or not lines[2].startswith(TRUSTED):
        raise Refusal(f"{name}: is not a signature of minisign")
    if data[:2] != PREHASHED:
        raise Refusal(f"{name}: is a signature of minisign's old form; sign with minisign 0.10 or newer")
    return Signature(_key_id(data[2:10]), data[10:], lines[2][len(TRUSTED) :], whole)


def _key_id(data: bytes) -> str:
    return data[::-1].hex().upper()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
