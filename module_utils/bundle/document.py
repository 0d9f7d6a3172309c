# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself: the manifest, which is signed, and each volume's list of pieces. Pure.

    manifest.json            {schema: 1, kind: full|delta, site, serial, lock_digest, lock, against, requires: [sha256],
                             installer: {file, sha256, size} | null, volumes: [{name, sha256, size, bytes}]}
    manifest.json.ID.minisig a signature, one for each signer
    volume-001/volume.json   {schema: 1, volume, pieces: [{file, blob, offset, size, sha256}]}
    volume-001/SHA256        a piece: a whole file of the lock, or a part of one

``sha256`` and ``size`` of a volume are those of its volume.json, ``bytes`` those of its pieces. What a bundle carries
follows from the lock: its parts without those of ``requires``, which the far depot has.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import SHA256
from ansible.module_utils.lock.document import canonical, checked
from ansible.module_utils.lock.parts import parts

SCHEMA = 1
MANIFEST = "manifest.json"
VOLUME = "volume.json"
KINDS = ("full", "delta")
VOLUME_NAME = re.compile(r"volume-[0-9]{3,6}")
INSTALLER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}\.pyz")
FIELDS = frozenset(
    {"schema", "kind", "site", "serial", "lock_digest", "lock", "against", "requires", "installer", "volumes"}
)


class Unreadable(Refusal):  # type: ignore[misc]  # our shared code is Any under Ansible's name
    """There is no bundle that could be judged: no manifest, or a medium that gives an error."""


@dataclass(frozen=True)
class Piece:
    """Some bytes of one blob, in a file of a volume that is named after their SHA-256."""

    blob: str
    offset: int
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Return the file's name in its volume."""
        return self.sha256


@dataclass(frozen=True)
class VolumeRow:
    """A volume as the manifest names it; `sha256` and `size` are those of its volume.json."""

    name: str
    sha256: str
    size: int
    bytes: int


@dataclass(frozen=True)
class Installer:
    """The program that brings a bare control host up."""

    file: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest, checked; `data` are the very bytes that are signed."""

    kind: str
    lock: Mapping[str, Any]
    against: str
    requires: frozenset[str]
    installer: Installer | None
    volumes: tuple[VolumeRow, ...]
    data: bytes

    @property
    def site(self) -> str:
        """Return the site that it is for."""
        return str(self.lock["site"])

    @property
    def serial(self) -> int:
        """Return its lock's serial."""
        return int(self.lock["serial"])

    @property
    def digest(self) -> str:
        """Return its lock's digest."""
        return str(self.lock["digest"])

    @property
    def carried(self) -> dict[str, int]:
        """Return {sha256: bytes} of what the volumes hold, in the order of the lock."""
        return {sha256: size for sha256, size in contents(self.lock).items() if sha256 not in self.requires}

    @property
    def words(self) -> str:
        """Return what it is, for a line of text."""
        return f"{self.kind} bundle of site {self.site}, lock {self.serial} ({self.digest[7:19]})"


def contents(lock: Mapping[str, Any]) -> dict[str, int]:
    """Return {sha256: bytes} of all parts of a lock, each content once, in the order of the parts."""
    found: dict[str, int] = {}
    for part in parts(lock):
        found.setdefault(part.sha256, part.size)
    return found


def manifest_bytes(
    lock: Mapping[str, Any],
    volumes: Sequence[VolumeRow],
    against: str = "",
    requires: Iterable[str] = (),
    installer: Installer | None = None,
) -> bytes:
    """Return the manifest; the same input gives the same bytes."""
    lacking = sorted(requires)
    document = {
        "schema": SCHEMA,
        "kind": "delta" if against else "full",
        "site": lock["site"],
        "serial": lock["serial"],
        "lock_digest": lock["digest"],
        "lock": lock,
        "against": against,
        "requires": lacking,
        "installer": asdict(installer) if installer else None,
        "volumes": [asdict(row) for row in volumes],
    }
    return bytes(canonical(document) + b"\n")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return a manifest whose signature was checked. Raises Refusal with all that is wrong with it."""
    document = _mapping(data, where)
    problems = list(_manifest_problems(document))
    if problems:
        raise Refusal([f"{where}: {problem}" for problem in problems])
    lock = checked(document["lock"], f"{where}: lock")
    for field, value in (("site", lock["site"]), ("serial", lock["serial"]), ("lock_digest", lock["digest"])):
        if document[field] != value:
            problems.append(f"{field} is {document[field]!r}, its lock says {value!r}")
    known = contents(lock)
    problems += [f"requires names {sha256}, which is no part of its lock" for sha256 in document["requires"]
                 if sha256 not in known]  # fmt: skip
    if problems:
        raise Refusal([f"{where}: {problem}" for problem in problems])
    return Manifest(
        document["kind"],
        lock,
        document["against"],
        frozenset(document["requires"]),
        Installer(**document["installer"]) if document["installer"] else None,
        tuple(VolumeRow(**row) for row in document["volumes"]),
        data,
    )


def _manifest_problems(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("schema") != SCHEMA:
        yield f"schema is {document.get('schema')!r}; this version of Redoubt reads schema {SCHEMA}"
        return
    if set(document) != FIELDS:
        yield f"its fields are {', '.join(sorted(map(str, document)))}; expected {', '.join(sorted(FIELDS))}"
        return
    against, kind = document["against"], document["kind"]
    if not isinstance(against, str) or kind != ("delta" if against else "full"):
        yield f"kind is {kind!r} and against {against!r}; a delta is against something, and nothing else is"
    requires = document["requires"]
    if not isinstance(requires, list) or not all(_is_sha256(item) for item in requires):
        yield "requires is not a list of SHA-256"
    installer = document["installer"]
    if installer is not None and not _is_installer(installer):
        yield f"installer {installer!r} is not a file's name that ends in .pyz, with its sha256 and size"
    volumes = document["volumes"]
    if not isinstance(volumes, list) or not all(_is_volume(row) for row in volumes):
        yield "volumes is not a list of {name, sha256, size, bytes}"
    elif [row["name"] for row in volumes] != [volume_name(number) for number in range(1, len(volumes) + 1)]:
        yield "volumes are not named volume-001 and so on, in this order"


def volume_name(number: int) -> str:
    """Return the name of a volume, counted from 1."""
    return f"volume-{number:03d}"


def volume_bytes(name: str, pieces: Iterable[Piece]) -> bytes:
    """Return a volume's list; the same pieces give the same bytes."""
    rows = [
        {"file": piece.file, **asdict(piece)} for piece in sorted(pieces, key=lambda piece: (piece.blob, piece.offset))
    ]
    return bytes(canonical({"schema": SCHEMA, "volume": name, "pieces": rows}) + b"\n")


def parse_volume(data: bytes, row: VolumeRow, carried: Mapping[str, int], where: str) -> list[Piece]:
    """Return the pieces of a volume whose list is the manifest's. Raises Refusal with all that is wrong with it."""
    if len(data) != row.size or hashlib.sha256(data).hexdigest() != row.sha256:
        raise Refusal(f"{where}: is not the list that this bundle's manifest names; copy this volume again")
    document = _mapping(data, where)
    pieces = document.get("pieces")
    if document.get("schema") != SCHEMA or document.get("volume") != row.name or not isinstance(pieces, list):
        raise Refusal(f"{where}: is not the list of {row.name}")
    found, problems = [], []
    for item in pieces:
        wrong = _piece_problem(item, carried)
        if wrong:
            problems.append(f"{where}: piece {item!r} {wrong}")
        else:
            found.append(Piece(item["blob"], item["offset"], item["size"], item["sha256"]))
    if problems:
        raise Refusal(problems)
    return found


def _piece_problem(item: object, carried: Mapping[str, int]) -> str | None:
    if not isinstance(item, Mapping) or set(item) != {"file", "blob", "offset", "size", "sha256"}:
        return "has other fields than file, blob, offset, size, sha256"
    if not _is_sha256(item["sha256"]) or item["file"] != item["sha256"]:
        return "is not in a file that is named after its SHA-256"
    if item["blob"] not in carried:
        return "belongs to no part that this bundle carries"
    if not _is_count(item["offset"]) or not _is_count(item["size"]):
        return "has no numbers for offset and size"
    if item["offset"] + item["size"] > carried[item["blob"]]:
        return "ends behind the end of its blob"
    return None


def gaps(pieces: Iterable[Piece], carried: Mapping[str, int]) -> list[str]:
    """Return the blobs that the pieces of all volumes do not make up exactly."""
    ends = dict.fromkeys(carried, 0)
    seen: set[str] = set()
    wrong = set()
    for piece in sorted(pieces, key=lambda piece: (piece.blob, piece.offset)):
        seen.add(piece.blob)
        if piece.offset != ends[piece.blob]:
            wrong.add(piece.blob)
        ends[piece.blob] = piece.offset + piece.size
    return sorted(wrong | {blob for blob, size in carried.items() if blob not in seen or ends[blob] != size})


def _mapping(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{where}: is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise Refusal(f"{where}: is not a mapping")
    return document


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_volume(row: object) -> bool:
    return (
        isinstance(row, Mapping)
        and set(row) == {"name", "sha256", "size", "bytes"}
        and isinstance(row["name"], str)
        and VOLUME_NAME.fullmatch(row["name"]) is not None
        and _is_sha256(row["sha256"])
        and _is_count(row["size"])
        and _is_count(row["bytes"])
    )


def _is_installer(row: object) -> bool:
    return (
        isinstance(row, Mapping)
        and set(row) == {"file", "sha256", "size"}
        and isinstance(row["file"], str)
        and INSTALLER_NAME.fullmatch(row["file"]) is not None
        and _is_sha256(row["sha256"])
        and _is_count(row["size"])
    )
