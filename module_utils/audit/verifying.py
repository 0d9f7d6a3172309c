# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading the audit log and its seals again, and naming what is not as it was sealed.

Standard library only, Python 3.9+. Writes nothing. Memory does not grow with the size of the logs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Optional

from .chain import NOTHING, Seal, moment, parse, read_lines, stamp
from .logs import BLOCK, DAMAGE, LONGEST, LogFile, find_all
from .sealing import DAY, SEALS, Chain


@dataclass
class Report:
    """What was read, and what is wrong with it."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seals: int = 0
    files: int = 0
    lines: int = 0
    bytes: int = 0
    gone: int = 0
    head: dict[str, Any] = field(default_factory=dict)


def verify(
    log: Path, state: Path, days: int, now: float, head: Mapping[str, Any] | None = None, grace: float = 1800
) -> Report:
    """Prove the log by its seals; lines may wait `grace` seconds for theirs. Raises OSError.

    `head` ({seal, chain}) was seen earlier and must still be in the chain.
    """
    report = Report()
    path = state / SEALS
    most = path.stat().st_size if path.exists() else 0
    chain = _check_chain(path, most, head, report)
    oldest = now - days * DAY
    kept = chain.kept(oldest)
    files = find_all(log, kept, len(kept))
    report.problems += [f"{file.path}: cannot be read ({file.fault})" for file in files if file.fault]
    by_identity = {file.identity: file for file in files if file.identity}
    unknown = [file for name, file in by_identity.items() if name not in chain.files]
    lost = chain.lost(files, oldest)
    ranges = _ranges(path, most, {*by_identity, *(seal.file for seal in lost)})
    for seal in lost:
        file = _altered(unknown, ranges[seal.file])
        if file:
            unknown.remove(file)
            _check_file(file, ranges[seal.file], report, now - grace)
        else:
            report.problems.append(
                f"{log.parent}/{seal.name}: this file is missing, or its first line was altered; {seal.end} bytes of it"
                f" were sealed until {seal.time} (seal {seal.seq}), and it must stay for {days} days"
            )
    gone = [seal for name, seal in chain.files.items() if name not in by_identity and moment(seal.newest) < oldest]
    report.gone = len(gone)
    if gone:
        last = max(seal.newest for seal in gone)
        report.notes.append(
            f"{len(gone)} files are gone, older than {days} days: nothing in them was written after {last}"
        )
    known = set(chain.files)
    for file in files:
        if file not in unknown and file.identity not in known:
            continue
        seals = ranges.get(file.identity, [])
        try:
            _check_file(file, seals, report, now - grace)
        except FileNotFoundError:
            # It was renamed or compressed just now.
            for again in find_all(log, kept, len(kept)):
                if again.identity == file.identity:
                    _check_file(again, seals, report, now - grace)
    return report


def _check_chain(path: Path, most: int, head: Mapping[str, Any] | None, report: Report) -> Chain:
    chain, previous, expected, witnessed = Chain(), NOTHING, 1, False
    for number, line in enumerate(read_lines(path, most), 1):
        where = f"{path}, line {number}"
        report.seals += 1
        try:
            seal = parse(line)
        except ValueError as error:
            report.problems.append(f"{where}: seal {expected} was altered ({error})")
            expected, previous = expected + 1, ""
            continue
        if seal.seq != expected:
            report.problems.append(
                f"{where}: seal {seal.seq} stands where seal {expected} belongs: removed or reordered"
            )
        elif previous and seal.link(previous) != seal.chain:
            report.problems.append(f"{where}: seal {seal.seq} of {seal.time} was altered, or the one before it")
        if head and seal.seq == head["seal"]:
            witnessed = True
            if seal.chain != head["chain"]:
                report.problems.append(
                    f"{where}: seal {seal.seq} is not the one that was witnessed ({seal.chain[:12]}…, not"
                    f" {head['chain'][:12]}…): the chain was written anew"
                )
        chain.add(seal)
        expected, previous = seal.seq + 1, seal.chain
    if head and not witnessed:
        end = f"ends with seal {chain.last.seq}" if chain.last else "has no seal"
        report.problems.append(f"{path}: seal {head['seal']} was witnessed, and the chain {end}: its end was cut off")
    if chain.last:
        report.head = {"seal": chain.last.seq, "chain": chain.last.chain, "time": chain.last.time}
    elif not report.problems:
        report.problems.append(f"{path}: there is no seal, so nothing can be proved - run the gateway playbook")
    return chain


def _ranges(path: Path, most: int, wanted: set[str]) -> dict[str, list[Seal]]:
    found: dict[str, list[Seal]] = {}
    for line in read_lines(path, most):
        try:
            seal = parse(line)
        except ValueError:
            continue
        if seal.file in wanted:
            found.setdefault(seal.file, []).append(seal)
    return {name: sorted(seals, key=lambda seal: seal.start) for name, seals in found.items()}


def _altered(unknown: Iterable[LogFile], seals: list[Seal]) -> Optional[LogFile]:
    """The file whose first line was altered: the one of the same inode, or in which a later stretch stands."""
    files = list(unknown)
    for file in files:
        if not file.packed and file.inode == seals[-1].inode:
            return file
    for file in files if len(seals) > 1 else []:
        try:
            with file.open() as stream:
                stream.seek(seals[-1].start)
                if _hash(stream, seals[-1].end - seals[-1].start)[0] == seals[-1].sha256:
                    return file
        except DAMAGE:
            continue
    return None


def _hash(stream: IO[bytes], size: int) -> tuple[str, int, int]:
    """SHA-256, lines and number of the next `size` bytes."""
    digest, lines, left = hashlib.sha256(), 0, size
    while left:
        block = stream.read(min(BLOCK, left))
        if not block:
            break
        digest.update(block)
        lines += block.count(b"\n")
        left -= len(block)
    return digest.hexdigest(), lines, size - left


def _check_file(file: LogFile, seals: list[Seal], report: Report, deadline: float) -> None:
    """Read one file against its seals, and look at what is not sealed. Raises OSError when it cannot be opened."""
    position, wrong = 0, 0
    with file.open() as stream:
        report.files += 1
        try:
            for seal in seals:
                if seal.start != position:
                    report.problems.append(
                        f"{file.path}: bytes {min(seal.start, position)} to {max(seal.start, position)} are"
                        f" {'in no seal' if seal.start > position else 'in two seals'} (before seal {seal.seq})"
                    )
                    stream.seek(seal.start)
                position = seal.end
                digest, lines, size = _hash(stream, seal.end - seal.start)
                report.bytes += size
                report.lines += lines
                if digest == seal.sha256:
                    wrong = 0
                    continue
                wrong += 1
                if wrong == 1:
                    report.problems.append(_difference(file, seal, lines, size))
                elif wrong == 2:
                    report.problems[-1] += (
                        "; what follows has moved or was altered too, as after a line removed or inserted"
                    )
            _check_rest(file, stream, position, report, deadline)
        except DAMAGE as error:
            report.problems.append(f"{file.path}: cannot be read after byte {position} ({error or 'it is damaged'})")


def _difference(file: LogFile, seal: Seal, lines: int, size: int) -> str:
    if size < seal.end - seal.start:
        why = f"the file ends at byte {seal.start + size}: lines were removed, here or before"
    elif lines != seal.lines:
        why = f"{lines} lines where {seal.lines} were sealed: lines were removed, inserted or joined"
    else:
        why = f"some of its {lines} lines were altered, or exchanged"
    return f"{file.path}: bytes {seal.start} to {seal.end} are not what seal {seal.seq} of {seal.time} says: {why}"


def _check_rest(file: LogFile, stream: IO[bytes], position: int, report: Report, deadline: float) -> None:
    first = stream.readline(LONGEST)
    if not first:
        return
    if not first.endswith(b"\n"):
        if file.modified < deadline:
            report.notes.append(f"{file.path}: {len(first)} bytes at its end are no whole line, and not sealed")
        return
    written = _written(first, file.modified)
    if written < deadline:
        report.problems.append(
            f"{file.path}: from byte {position} on nothing is sealed, though it was written at {stamp(written)} -"
            " the sealing stands still, or lines were put there (systemctl status redoubt-audit-seal.timer)"
        )


def _written(line: bytes, modified: float) -> float:
    """When a line was written, by its own word; else when its file was."""
    try:
        return min(datetime.fromisoformat(json.loads(line)["time"]).timestamp(), modified)
    except (ValueError, KeyError, TypeError):
        return modified
