# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Proving a bundle from its medium alone: signatures, completeness, every byte; and what does not belong there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.reading import hash_from_disk

from .document import MANIFEST, VOLUME, Manifest, Piece, Unreadable, gaps, parse_manifest, parse_volume
from .keys import read_keys
from .reading import BadFile, is_folder, names, opened, read_all
from .signing import SIGNATURE, Policy, signers

MOST_WORKERS = 8
IGNORED = ("lost+found", "System Volume Information")
GOOD, BAD, UNREADABLE = 0, 1, 2

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file: ``missing``, ``bad``, ``extra`` or ``unreadable``; the path is in the bundle."""

    kind: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass
class Content:
    """What stands on a medium: the volumes that are there with their pieces, those that are not, and what is wrong."""

    folder: Path
    manifest: Manifest
    signers: list[str]
    volumes: dict[str, list[Piece]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, error: BadFile, advice: str) -> None:
        """Note what is wrong with a file."""
        self.faults.append(Fault(error.kind, str(error.path.relative_to(self.folder)), f"{error.text}; {advice}"))


@dataclass(frozen=True)
class Report:
    """A verified bundle; `exit_code` is 0 for a good one, 1 for a bad one, 2 when the medium cannot be read."""

    content: Content
    faults: list[Fault]
    read_bytes: int

    @property
    def exit_code(self) -> int:
        """Return what a program ends with."""
        if any(fault.kind == "unreadable" for fault in self.faults):
            return UNREADABLE
        return BAD if self.faults else GOOD


def verify(
    folder: Path,
    keys: Iterable[str | Path],
    need: int = 1,
    *,
    partial: bool = False,
    workers: int = 0,
    tick: Tick = lambda _: None,
) -> Report:
    """Prove a bundle, reading past the cache of this machine; changes nothing. Raises Refusal, Unreadable.

    With `partial` volumes that are not here are no fault. `tick` gets the number of bytes that were read.
    """
    content = survey(folder, Policy(read_keys(keys), need))
    faults = list(content.faults)
    if not partial:
        faults += [Fault("missing", f"{name}/{VOLUME}", "this volume is not here") for name in content.absent]
    jobs = {folder / name / piece.file: piece for name, pieces in content.volumes.items() for piece in pieces}
    if content.manifest.installer:
        row = content.manifest.installer
        jobs[folder / row.file] = Piece("", 0, row.size, row.sha256)
    faults += prove(folder, jobs, workers, tick) + list(_extra(content))
    order = sorted(faults, key=lambda fault: (fault.path, fault.kind))
    return Report(content, order, sum(piece.size for piece in jobs.values()))


def survey(folder: Path, policy: Policy) -> Content:
    """Return what a bundle says, its signatures checked, and which volumes are here. Raises Refusal, Unreadable."""
    names(folder)
    try:
        data = read_all(folder / MANIFEST)
    except BadFile as error:
        kind = Refusal if error.kind == "bad" else Unreadable
        raise kind(f"{error}; is this the folder of a bundle?") from None
    who = signers(data, folder, policy)
    manifest = parse_manifest(data, str(folder / MANIFEST))
    content = Content(folder, manifest, who)
    carried = manifest.carried
    for row in manifest.volumes:
        path = folder / row.name
        try:
            if not is_folder(path):
                if os.path.lexists(path):
                    raise BadFile("bad", path, "is not a folder")
                content.absent.append(row.name)
                continue
            found = read_all(path / VOLUME)
            content.volumes[row.name] = parse_volume(found, row, carried, str(path / VOLUME))
        except BadFile as error:
            content.fault(error, f"copy {row.name} again")
        except Refusal as refusal:
            content.faults += [
                Fault("bad", f"{row.name}/{VOLUME}", problem.partition(": ")[2]) for problem in refusal.problems
            ]
    if not content.absent and not content.faults:
        every = [piece for pieces in content.volumes.values() for piece in pieces]
        for blob in gaps(every, carried):
            content.faults.append(Fault("bad", MANIFEST, f"the volumes do not make up {blob}; build the bundle again"))
    return content


@dataclass(frozen=True)
class _Prover:
    folder: Path
    tick: Tick

    def prove(self, job: tuple[Path, Piece]) -> Fault | None:
        path, piece = job
        where = str(path.relative_to(self.folder))
        try:
            with opened(path, piece.size):
                pass
            try:
                digest, _ = hash_from_disk(path, self.tick)
            except OSError as error:
                raise BadFile("unreadable", path, error.strerror or str(error)) from None
        except BadFile as error:
            return Fault(error.kind, where, f"{error.text}; copy this file again")
        if digest != piece.sha256:
            return Fault(
                "bad", where, f"its bytes have the sha256 {digest}, the list says {piece.sha256}; copy it again"
            )
        return None


def _extra(content: Content) -> Iterator[Fault]:
    """Yield what does not belong to the bundle."""
    manifest = content.manifest
    volumes = {row.name for row in manifest.volumes}
    known = {MANIFEST, *IGNORED, *volumes} | ({manifest.installer.file} if manifest.installer else set())
    for name in names(content.folder):
        if name not in known and not SIGNATURE.fullmatch(name):
            yield Fault("extra", name, "is no part of this bundle; take it away")
    for name, pieces in content.volumes.items():
        listed = {VOLUME, *(piece.file for piece in pieces)}
        for file in names(content.folder / name):
            if file not in listed:
                yield Fault("extra", f"{name}/{file}", "is no part of this bundle; take it away")


def prove(folder: Path, jobs: Mapping[Path, Piece], workers: int = 0, tick: Tick = lambda _: None) -> list[Fault]:
    """Return what is wrong with these files, each of which its piece describes. `tick` as with `verify`."""
    prover = _Prover(folder, tick)
    with ThreadPoolExecutor(workers or min(MOST_WORKERS, os.cpu_count() or 1)) as pool:
        found = pool.map(prover.prove, sorted(jobs.items(), key=lambda job: -job[1].size))
        return [fault for fault in found if fault is not None]
