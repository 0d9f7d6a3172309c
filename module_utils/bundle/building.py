# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Writing a bundle: pieces first, then each volume's list, the manifest last. A killed run is taken up where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.blobs import sync_folder
from ansible.module_utils.artifacts.errors import Refusal, plural
from ansible.module_utils.artifacts.manifest import SHA256
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.lock.document import canonical, checked
from ansible.module_utils.lock.parts import parts
from ansible.module_utils.run_lock import Busy

from .document import (
    INSTALLER_NAME,
    MANIFEST,
    VOLUME,
    VOLUME_NAME,
    Installer,
    Manifest,
    Piece,
    VolumeRow,
    manifest_bytes,
    parse_manifest,
    volume_bytes,
    volume_name,
)
from .packing import PIECE, Cut, cuts
from .planning import Against, carried
from .reading import BadFile, names, read_all
from .signing import SIGNATURE
from .writing import Tick, Writer, put

MARKER = "building.json"  # there until the manifest is
SPARE = 256 * 1024  # signatures, and what a file system takes for folders
MOST_WORKERS = 8
IGNORED = ("lost+found", "System Volume Information")  # what a file system puts into its root
OWN = re.compile(rf"{SHA256.pattern}|{re.escape(VOLUME)}|\.[0-9a-f]+\.new")


@dataclass(frozen=True)
class Built:
    """A bundle that was written; `written` is how many bytes of pieces were not there yet."""

    manifest: Manifest
    written: int
    changed: bool


@dataclass(frozen=True)
class Wishes:
    """How a bundle shall be: bytes of a volume and of a piece, what it is a delta against, the installer's file."""

    volume_size: int | None = None
    piece: int = PIECE
    against: Against | None = None
    installer: Path | None = None
    workers: int = 0


def build(
    depot: Depot, lock: Mapping[str, Any], out: Path, wishes: Wishes | None = None, tick: Tick = lambda _: None
) -> Built:
    """Write the bundle of a lock into a folder, from what the depot holds. Raises Refusal, Busy, OSError.

    The same lock and wishes give the same bytes. `tick` gets the number of bytes that were read.
    """
    wishes = wishes or Wishes()
    lock = checked(lock)
    wanted = carried(lock, wishes.against)
    lacking = depot.missing(part for part in parts(lock) if part.sha256 in wanted)
    if lacking:
        raise Refusal(
            [f"{depot.root}: {plural(len(lacking), 'file')} of the lock missing; bring them: ./redoubt play gather"]
            + [f"{part.kind} {part.name} {part.version}: {part.path} (sha256 {part.sha256})" for part in lacking]
        )
    installer = _installer(wishes.installer)
    room = None
    if wishes.volume_size is not None:
        head = len(canonical(lock)) + 70 * len(lock["platforms"]) + (installer.size if installer else 0) + SPARE
        room = wishes.volume_size - head - 70 * (len(wanted) if wishes.against else 0)
    plan = cuts(wanted, wishes.piece, room)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        was = _begin(out, lock, wishes)
        return _write(depot, lock, out, wishes, installer, plan, was, tick)


def _write(
    depot: Depot,
    lock: Mapping[str, Any],
    out: Path,
    wishes: Wishes,
    installer: Installer | None,
    plan: Sequence[Cut],
    was: bytes | None,
    tick: Tick,
) -> Built:
    volumes = max((cut.volume for cut in plan), default=1)
    by_blob: dict[str, list[Cut]] = {}
    for cut in plan:
        by_blob.setdefault(cut.blob, []).append(cut)
    for number in range(1, volumes + 1):
        _folder(out / volume_name(number))
    _room_for(out, by_blob)
    writer = Writer(depot, out, tick)
    with ThreadPoolExecutor(wishes.workers or min(MOST_WORKERS, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(writer.write, blob, rows) for blob, rows in by_blob.items()]
        try:
            results = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    pieces: dict[int, list[Piece]] = {number: [] for number in range(1, volumes + 1)}
    for rows in results:
        for volume, piece in rows:
            pieces[volume].append(piece)
    table = []
    for number, found in pieces.items():
        name, data = volume_name(number), volume_bytes(volume_name(number), found)
        put(out / name / VOLUME, data)
        _tidy(out / name, {VOLUME, *(piece.file for piece in found)})
        sync_folder(out / name)
        files = {piece.file: piece.size for piece in found}
        table.append(VolumeRow(name, hashlib.sha256(data).hexdigest(), len(data), sum(files.values())))
    for name in names(out):
        if VOLUME_NAME.fullmatch(name) and name not in {row.name for row in table}:
            shutil.rmtree(out / name)
    if installer and wishes.installer:
        put(out / installer.file, wishes.installer.read_bytes())
    against = wishes.against
    data = manifest_bytes(
        lock, table, against.digest if against else "", against.blobs_of(lock) if against else (), installer
    )
    put(out / MANIFEST, data)
    if was is not None and was != data:
        for name in filter(SIGNATURE.fullmatch, names(out)):
            (out / name).unlink()
    (out / MARKER).unlink(missing_ok=True)
    sync_folder(out)
    return Built(parse_manifest(data, str(out / MANIFEST)), sum(writer.written), was != data or any(writer.written))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No other run writes into this folder. Raises Busy, OSError."""
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{out}: another run is writing a bundle there; let it end, then run again", "") from None
        yield
    finally:
        os.close(descriptor)


def _begin(out: Path, lock: Mapping[str, Any], wishes: Wishes) -> bytes | None:
    """Mark the folder as a bundle that is being written; return the manifest that stood there. Raises Refusal."""
    marker = {"digest": lock["digest"], "site": lock["site"]}
    here = names(out)
    was = None
    if MANIFEST in here:
        try:
            was = read_all(out / MANIFEST)
            stated = json.loads(was)
            marked = {"digest": stated["lock_digest"], "site": stated["site"]}
        except (BadFile, ValueError, KeyError, TypeError):
            raise Refusal(f"{out / MANIFEST}: is no manifest of a bundle; empty the folder, or name another") from None
    elif MARKER in here:
        try:
            marked = json.loads(read_all(out / MARKER))
        except (BadFile, ValueError):
            marked = marker  # cut short while it was written: nothing else is there then
    else:
        marked = marker
    strange = [name for name in here if not _is_own(name)]
    if MARKER not in here and MANIFEST not in here:
        strange = [name for name in here if name not in IGNORED]
    if strange:
        raise Refusal(f"{out}: holds {', '.join(strange[:5])}, which is no part of a bundle; name an empty folder")
    if marked != marker:
        raise Refusal(
            f"{out}: holds the bundle of site {marked.get('site')}, lock {str(marked.get('digest'))[7:19]}; this is "
            f"of site {lock['site']}, lock {lock['digest'][7:19]}: empty the folder, or name another"
        )
    put(out / MARKER, canonical(marker) + b"\n")
    (out / MANIFEST).unlink(missing_ok=True)  # what stands there now is no bundle until it is written again
    return was


def _is_own(name: str) -> bool:
    return (
        name in {MANIFEST, MARKER, *IGNORED}
        or SIGNATURE.fullmatch(name) is not None
        or VOLUME_NAME.fullmatch(name) is not None
        or INSTALLER_NAME.fullmatch(name) is not None
        or name.endswith(".new")
    )


def _folder(path: Path) -> None:
    """Make a volume's folder, without what a killed run left half-written. Raises Refusal, OSError."""
    if path.is_symlink():
        raise Refusal(f"{path}: is a link; a bundle has none. Empty the folder, or name another")
    path.mkdir(exist_ok=True)
    for item in os.scandir(path):
        if not OWN.fullmatch(item.name) or not item.is_file(follow_symlinks=False):
            raise Refusal(f"{item.path}: is no part of a bundle; take it away")
        if item.name.endswith(".new"):
            os.unlink(item.path)


def _tidy(folder: Path, wanted: set[str]) -> None:
    for name in names(folder):
        if name not in wanted:
            (folder / name).unlink()


def _room_for(out: Path, by_blob: Mapping[str, Sequence[Cut]]) -> None:
    """Refuse before the first byte when the medium cannot hold the rest. Raises Refusal, OSError."""
    need = sum(cut.size for rows in by_blob.values() for cut in rows)
    here = sum(
        item.stat().st_size for name in names(out) if VOLUME_NAME.fullmatch(name) for item in os.scandir(out / name)
    )
    free = shutil.disk_usage(out).free
    if need - here > free:
        raise Refusal(
            f"{out}: {need} bytes are to be written there, {here} are there, and {free} are free; take a larger one, "
            "or build in volumes (--volume-size) in a larger folder"
        )


def _installer(path: Path | None) -> Installer | None:
    if path is None:
        return None
    data = path.read_bytes()
    return Installer(path.name, hashlib.sha256(data).hexdigest(), len(data))
