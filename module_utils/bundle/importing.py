# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""A bundle on its way into the depot of the far side: judged first, proved while it is copied, published last."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal, plural
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.lock.parts import parts
from ansible.module_utils.run_lock import only_run

from .checking import Content, prove, survey
from .document import Manifest, Piece, VolumeRow, parse_volume, volume_bytes
from .keys import read_keys
from .reading import BadFile
from .signing import Policy
from .taking import Source, Taker, completes, forget, is_in, journal_of

#: More than there may be cores: while one thread waits for the disk, another one hashes.
WORKERS = 4
OLDER = "--allow-older, with the playbook import -e bundle_allow_older=true"

Tick = Callable[[int], None]


class Incomplete(Refusal):  # type: ignore[misc]  # our shared code is Any under Ansible's name
    """What is here was brought in; further volumes have to come before the site can be published."""


@dataclass(frozen=True)
class Imported:
    """What an import did: `absent` are volumes that have to come yet (then nothing was published)."""

    site: str
    serial: int
    digest: str
    signers: list[str]
    brought: int
    absent: list[str]
    changed: bool


def bring(
    folder: Path,
    depot: Depot,
    keys: Iterable[str | Path],
    *,
    site: str | None = None,
    need: int = 1,
    allow_older: bool = False,
    partial: bool = False,
    workers: int = 0,
    tick: Tick = lambda _: None,
) -> Imported:
    """Bring what is on a medium into a depot; publish the lock when all is there. Raises Refusal, Busy, OSError.

    Nothing of a bundle that is refused enters the depot. A run that was stopped goes on where it was. Without `partial`
    a volume that is not here raises Incomplete, after the others were brought.
    """
    content = _whole(folder, keys, need)
    depot.prepare()
    with only_run(depot.root / "state" / ".import", f"an import into {depot.root}", depot.patience):
        _judge(content.manifest, depot, site, allow_older)
        _has_required(content.manifest, depot)
        _has_room(content, depot)
        depot.expect(content.manifest.lock)
        brought = _copy(content, depot, workers, tick)
        manifest = content.manifest
        lacking = _still_to_come(content, depot)
        changed = False
        if not lacking:
            changed = depot.publish(manifest.lock)
            for path in _lists(depot, manifest):
                path.unlink(missing_ok=True)
    done = Imported(
        manifest.site, manifest.serial, manifest.digest, content.signers, brought, lacking, changed or brought > 0
    )
    if lacking and not partial:
        raise _incomplete(content, lacking, "is")
    return done


def rehearse(
    folder: Path,
    depot: Depot,
    keys: Iterable[str | Path],
    *,
    site: str | None = None,
    need: int = 1,
    allow_older: bool = False,
    partial: bool = False,
    workers: int = 0,
    tick: Tick = lambda _: None,
) -> Imported:
    """Return what `bring` would do, or raise what it would raise; reads what it would bring, and writes nothing."""
    content = _whole(folder, keys, need)
    manifest = content.manifest
    _judge(manifest, depot, site, allow_older)
    _has_required(manifest, depot)
    _has_room(content, depot)
    coming: dict[str, list[Piece]] = {}
    files: dict[Path, Piece] = {}
    for name, pieces in content.volumes.items():
        for piece in pieces:
            if not depot.has(piece.blob, manifest.carried[piece.blob]):
                coming.setdefault(piece.blob, []).append(piece)
                files[folder / name / piece.file] = piece
    faults = prove(folder, files, workers, tick)
    if faults:
        raise _unusable(folder, [f"{folder}/{fault}" for fault in faults])
    whole = {
        blob: size
        for blob, size in manifest.carried.items()
        if blob in coming and completes(depot, blob, size, coming[blob])
    }
    wanted = any(blob not in whole and not depot.has(blob, size) for blob, size in manifest.carried.items())
    lacking = _to_come(content, depot) if wanted else []
    if lacking and not partial:
        raise _incomplete(content, lacking, "would be")
    changed = bool(whole) or (not lacking and depot.lock(manifest.site) != manifest.lock)
    return Imported(
        manifest.site, manifest.serial, manifest.digest, content.signers, sum(whole.values()), lacking, changed
    )


def _whole(folder: Path, keys: Iterable[str | Path], need: int) -> Content:
    """Return what a medium holds, its signatures and lists checked. Raises Refusal."""
    content = survey(folder, Policy(read_keys(keys), need))
    if content.faults:
        raise Refusal([f"{folder}/{fault}" for fault in content.faults])
    return content


def _incomplete(content: Content, lacking: Sequence[str], state: str) -> Incomplete:
    here = ", ".join(content.volumes) or "no volume"
    return Incomplete(
        f"{content.folder}: {here} {state} in the depot now, nothing of site {content.manifest.site} was published; "
        f"still to come: {', '.join(lacking)}. Insert the next medium and run the import again"
    )


def _unusable(folder: Path, faults: Sequence[str]) -> Refusal:
    advice = "nothing was published. Copy these files again from where the bundle was built, then import again"
    return Refusal([f"{folder}: {plural(len(faults), 'file')} cannot be used; {advice}:", *faults])


def _judge(manifest: Manifest, depot: Depot, site: str | None, allow_older: bool) -> None:
    """Refuse the bundle of another site, and one that is older than what was published."""
    known = depot.records.sites()
    if site is not None and site != manifest.site:
        raise Refusal(f"this is a {manifest.words}, and site {site} was asked for; take the right bundle")
    if site is None and known and manifest.site not in known:
        raise Refusal(
            f"this is a {manifest.words}, and this depot serves {', '.join(known)}; if it shall serve that site, too, "
            f"say so: --site {manifest.site}, with the playbook import -e redoubt_site={manifest.site}"
        )
    highest = depot.records.highest_serial(manifest.site)
    if manifest.serial < highest and not allow_older:
        raise Refusal(
            f"this is a {manifest.words}, and lock {highest} of this site was published here before; an older bundle "
            f"brings back what was mended since. If that is wanted: {OLDER}"
        )
    now = depot.lock(manifest.site)
    if now is not None and now["serial"] == manifest.serial and now["digest"] != manifest.digest and not allow_older:
        raise Refusal(
            f"this is a {manifest.words}, and another lock {manifest.serial} ({now['digest'][7:19]}) is in force here: "
            f"two were made from one. Make the next one from the lock in force, or say {OLDER}"
        )


def _has_required(manifest: Manifest, depot: Depot) -> None:
    lacking = depot.missing(part for part in parts(manifest.lock) if part.sha256 in manifest.requires)
    if lacking:
        raise Refusal(
            [
                f"this is a {manifest.words}, made against {manifest.against}; the depot {depot.root} lacks "
                f"{plural(len(lacking), 'file')} that it leaves out. Build a delta against its inventory.json, "
                "or a full bundle:"
            ]
            + [f"{part.kind} {part.name} {part.version}: {part.path} (sha256 {part.sha256})" for part in lacking]
        )


def _still_to_come(content: Content, depot: Depot) -> list[str]:
    """Remember the lists of the volumes that are in; return which others have to come. Raises OSError."""
    manifest = content.manifest
    if all(depot.has(sha256, size) for sha256, size in manifest.carried.items()):
        return []
    for row in manifest.volumes:
        if row.name in content.volumes:  # the list is proved by its digest when it is read
            _list(depot, manifest, row).write_bytes(volume_bytes(row.name, content.volumes[row.name]))
    return _to_come(content, depot)


def _to_come(content: Content, depot: Depot) -> list[str]:
    """Return the volumes that are neither here nor came before. Raises OSError."""
    manifest = content.manifest
    others = [row for row in manifest.volumes if row.name not in content.volumes]
    lists = ((row, _list(depot, manifest, row)) for row in others)
    return [row.name for row, path in lists if not _is_in(path, row, manifest.carried, depot)] or content.absent


def _list(depot: Depot, manifest: Manifest, row: VolumeRow) -> Path:
    return Path(depot.blobs.partial / f"{manifest.digest[7:]}.{row.sha256}.volume")


def _is_in(path: Path, row: VolumeRow, carried: Mapping[str, int], depot: Depot) -> bool:
    """Tell whether a volume was here before, and all of its pieces still are. Raises OSError."""
    try:
        pieces = parse_volume(path.read_bytes(), row, carried, str(path))
    except (FileNotFoundError, Refusal):
        return False
    return all(is_in(depot, piece, carried[piece.blob]) for piece in pieces)


def _lists(depot: Depot, manifest: Manifest) -> list[Path]:
    """Return the lists that were kept while volumes of this lock came, also of a bundle that was cut another way."""
    return list(depot.blobs.partial.glob(f"{manifest.digest[7:]}.*.volume"))


def _has_room(content: Content, depot: Depot) -> None:
    need = 0
    here = {piece.blob for pieces in content.volumes.values() for piece in pieces}
    for sha256, size in content.manifest.carried.items():
        if sha256 in here and not depot.has(sha256, size):
            partial = depot.blobs.partial / f"{sha256}.import"
            need += size - (partial.stat().st_blocks * 512 if partial.is_file() else 0)
    there = next(folder for folder in (depot.root, *depot.root.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if need > free:
        raise Refusal(f"{depot.root}: {need} bytes are to come, and {free} are free; make room, then import again")


def _copy(content: Content, depot: Depot, workers: int, tick: Tick) -> int:
    """Bring every blob that the volumes here have; returns the bytes that came. Raises Refusal, OSError."""
    sources: dict[str, list[Source]] = {}
    for name, pieces in content.volumes.items():
        for piece in pieces:
            sources.setdefault(piece.blob, []).append(Source(content.folder / name / piece.file, piece))
    carried = content.manifest.carried
    jobs = [
        (blob, size, sources[blob]) for blob, size in carried.items() if blob in sources and not depot.has(blob, size)
    ]
    for blob, size in carried.items():
        if depot.has(blob, size):  # a run that was stopped right after it took the blob in may have left its journal
            forget(journal_of(depot, blob))
    taker = Taker(depot, tick)
    try:
        faults = _take(taker, jobs, workers or WORKERS)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(
                f"{depot.root}: the disk is full; nothing was published. Make room, then import again: it goes on "
                "where it stopped"
            ) from error
        raise
    depot.blobs.sync([job[0] for job in jobs if depot.has(job[0], job[1])])
    if faults:
        raise _unusable(content.folder, [*map(str, faults)])
    return taker.brought


def _take(taker: Taker, jobs: Sequence[tuple[str, int, list[Source]]], threads: int) -> list[BadFile]:
    """Bring blobs in parallel; return what is wrong with their files. At an OSError no further one is begun."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(taker.take, *job) for job in jobs]
        try:
            return [fault for future in futures for fault in future.result()]
        except OSError:
            for future in futures:
                future.cancel()
            raise
