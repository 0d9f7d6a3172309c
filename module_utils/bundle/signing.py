# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Who signed a manifest, and signing it. The arithmetic is minisign's, or OpenSSL's where minisign is not installed."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal, plural

from .document import MANIFEST, Manifest, Unreadable
from .keys import PublicKey, parse_signature
from .reading import BadFile, names, read_all

SIGNATURE = re.compile(re.escape(MANIFEST) + r"(?:\.[0-9A-F]{16})?\.minisig")
OF_KEY = bytes.fromhex("302a300506032b6570032100")  # what stands before an Ed25519 key in DER
TIMEOUT = 60


@dataclass(frozen=True)
class Policy:
    """Whose signatures count, how many of different keys are needed, and which day it is."""

    keys: Sequence[PublicKey]
    need: int = 1
    today: datetime.date = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).date())


def signers(data: bytes, folder: Path, policy: Policy) -> list[str]:
    """Return the ids of the keys that signed these bytes. Raises Refusal when they are too few, saying why."""
    if policy.need < 1:
        raise Refusal(f"{policy.need} signatures are asked for; the least is 1")
    known = {key.id: key for key in policy.keys}
    good: dict[bytes, str] = {}
    notes: list[str] = []
    for name in names(folder):
        if not SIGNATURE.fullmatch(name):
            continue
        path = folder / name
        try:
            text = read_all(path).decode()
            signature = parse_signature(text, str(path))
        except BadFile as error:
            raise (Unreadable if error.kind == "unreadable" else Refusal)(str(error)) from None
        except UnicodeDecodeError:
            raise Refusal(f"{path}: is not text") from None
        key = known.get(signature.id)
        if key is None:
            notes.append(f"{path}: signed with key {signature.id}, which is none of yours")
        elif key.until is not None and policy.today > key.until:
            notes.append(f"{path}: signed with key {key.id}, which ended on {key.until} ({key.name})")
        elif not verified(data, text, key):
            raise Refusal(
                f"{path}: is not the signature of key {key.id} over this {MANIFEST}: one of the two was changed, or "
                "belongs to another bundle. Nothing of this medium can be trusted; get it again"
            )
        else:
            good[key.point] = key.id
    if len(good) < policy.need:
        found = f"{len(good)} by a key of yours" if good or notes else "none at all"
        why = f"{folder / MANIFEST}: {plural(policy.need, 'signature')} needed, there is {found}"
        trusted = ", ".join(f"{key.id} ({key.name})" for key in policy.keys)
        raise Refusal([why, *notes, f"keys that count here: {trusted}"])
    return sorted(good.values())


def verified(data: bytes, signature_text: str, key: PublicKey) -> bool:
    """Tell whether a signature file is that of a key over these bytes. Raises Refusal when no tool is there."""
    with tempfile.TemporaryDirectory(prefix="redoubt-verify-") as name:
        folder = Path(name)
        if shutil.which("minisign"):
            (folder / "data").write_bytes(data)
            (folder / "signature").write_text(signature_text)
            return _ends_well(
                ["minisign", "-V", "-q", "-P", key.text, "-m", str(folder / "data"), "-x", str(folder / "signature")]
            )
        if not shutil.which("openssl"):
            raise Refusal("neither minisign nor openssl is installed: no signature can be checked; install either")
        signature = parse_signature(signature_text, "the signature")
        body = base64.encodebytes(OF_KEY + key.point).decode()
        (folder / "key").write_text(f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n")
        prehash = hashlib.blake2b(data, digest_size=64).digest()
        whole = signature.value + signature.comment.encode()
        return _openssl(folder, prehash, signature.value) and _openssl(folder, whole, signature.whole)


def _openssl(folder: Path, data: bytes, signature: bytes) -> bool:
    (folder / "data").write_bytes(data)
    (folder / "signature").write_bytes(signature)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(folder / "key"), "-rawin"]
    return _ends_well([*command, "-in", str(folder / "data"), "-sigfile", str(folder / "signature")])


def _ends_well(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT).returncode == 0


def sign(folder: Path, manifest: Manifest, secret: Path, password: str | None = None) -> Path:
    """Sign a bundle's manifest with minisign; return the signature's file. Asks for the password where none is given.

    The same key gives the same bytes: what it says beside is the site, the serial and the digest, and no time.
    Raises Refusal, OSError.
    """
    if not shutil.which("minisign"):
        raise Refusal("minisign is not installed; bundles are signed with it (Debian, Ubuntu, EPEL: package minisign)")
    if folder.resolve() in secret.resolve().parents:
        raise Refusal(f"{secret}: a secret key must not lie in the bundle; move it away, and make a new one if it left")
    comment = f"redoubt bundle site={manifest.site} serial={manifest.serial} digest={manifest.digest}"
    with tempfile.TemporaryDirectory(prefix="redoubt-sign-") as name:
        data, made = Path(name) / MANIFEST, Path(name) / "signature"
        data.write_bytes(manifest.data)
        command = ["minisign", "-S", "-s", str(secret), "-m", str(data), "-x", str(made), "-t", comment]
        words = None if password is None else f"{password}\n"
        done = subprocess.run(command, input=words, text=True, stderr=subprocess.PIPE, check=False)
        if done.returncode or not made.is_file():
            raise Refusal(f"{secret}: minisign did not sign: {done.stderr.strip() or 'no reason given'}")
        text = made.read_text()
        target = folder / f"{MANIFEST}.{parse_signature(text, str(made)).id}.minisig"
        target.write_text(text)
    return target
