# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What makes a folder of packages a repository that hosts trust: its Release file, or repomd.xml, and the signature."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from .signing import Signer

FILE_MODE = 0o444
METADATA = "repodata/repomd.xml"


@dataclass(frozen=True)
class Index:
    """One list of packages of an APT repository: its path below the repository, its bytes' figures."""

    path: str
    size: int
    sha256: str
    sha512: str


def read_index(folder: Path, path: str) -> Index:
    """Return the figures of an index as it lies there. Raises OSError."""
    data = (folder / path).read_bytes()
    return Index(path, len(data), hashlib.sha256(data).hexdigest(), hashlib.sha512(data).hexdigest())


def release_text(site: str, platform: str, when: float, indexes: Sequence[Index]) -> bytes:
    """Return the Release file of a flat repository; `when` is in seconds since 1970.

    Its date only ever rises, also when an older lock is published again: APT keeps what it has over an older date.
    """
    lines = [
        "Origin: Redoubt depot",
        f"Label: {site}",
        f"Suite: {platform}",
        f"Codename: {platform}",
        f"Date: {formatdate(when, usegmt=True).replace('GMT', 'UTC')}",
        f"Architectures: {platform.rpartition('-')[2]}",
        f"Description: Packages of the lock of site {site}",
        "Acquire-By-Hash: yes",
        "SHA256:",
        *(f" {index.sha256} {index.size} {index.path}" for index in indexes),
        "SHA512:",
        *(f" {index.sha512} {index.size} {index.path}" for index in indexes),
    ]
    return ("\n".join(lines) + "\n").encode()


def listed(release: bytes) -> list[tuple[str, int, str]]:
    """Return (sha256, size, path) of what a Release file lists; what cannot be read is left out."""
    found: list[tuple[str, int, str]] = []
    section = b""
    for line in release.splitlines():
        if not line.startswith(b" "):
            section = line
        elif section == b"SHA256:":
            sha256, _, rest = line.strip().decode(errors="replace").partition(" ")
            size, _, path = rest.strip().partition(" ")
            found.append((sha256, int(size) if size.isdigit() else -1, path))
    return found


def by_hash(index: Index) -> Mapping[str, str]:
    """Return {path: path of the index} of the names under which APT asks for an index."""
    base = index.path.rpartition("/")[0]
    base = f"{base}/" if base else ""
    return {f"{base}by-hash/SHA256/{index.sha256}": index.path, f"{base}by-hash/SHA512/{index.sha512}": index.path}


def sign(folder: Path, kind: str, signer: Signer) -> bool:
    """Sign a repository that is not signed by this key; tell whether it was signed now. Raises Refusal, OSError."""
    if is_signed(folder, kind, signer):
        return False
    if kind == "rpm":
        write_bytes(folder / f"{METADATA}.asc", signer.detached((folder / METADATA).read_bytes()))
        return True
    write_bytes(folder / "InRelease", signer.clear_signed((folder / "Release").read_bytes()))
    return True


def is_signed(folder: Path, kind: str, signer: Signer) -> bool:
    """Tell whether the repository as it lies there has a good signature of this key. Raises OSError."""
    if kind == "rpm":
        signature = folder / f"{METADATA}.asc"
        return signature.is_file() and signer.is_signed(folder / METADATA, signature)
    document = folder / "InRelease"
    if not document.is_file():
        return False
    said = signer.signed_text(document.read_bytes())
    return said is not None and said.strip() == (folder / "Release").read_bytes().strip()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file of a view so that a reader sees the old or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.chmod(FILE_MODE)
    temporary.replace(path)
