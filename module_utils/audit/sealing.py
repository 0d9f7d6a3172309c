# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Sealing what the gateway's audit log has got since the last time. Standard library only, Python 3.9+.

Runs on the gateway from plain copies of this code, by a timer: `python3 -m ansible.module_utils.audit.sealing`.
Only whole lines are sealed. A seal counts when its line is whole and on the disk; a run that was killed is made up for
by the next one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Optional

from ansible.module_utils.run_lock import Busy, only_run

from .chain import NOTHING, Seal, moment, parse, read_lines, stamp
from .logs import DAMAGE, LogFile, find_all

SEALS = "seals.jsonl"
STATUS = "status.json"
STRETCH = 16 << 20
PATIENCE = 60.0
DAY = 86400
# How Nginx writes that an engine was lost within an answer. In a client's text the quotes would be escaped.
CUT = b'"ended":"cut"'


class Broken(Exception):
    """The seals cannot be continued; the text says why and what to do."""


@dataclass
class Chain:
    """What the seals say: the last one, and the last one of each file."""

    last: Optional[Seal] = None
    files: dict[str, Seal] = field(default_factory=dict)
    #: Answers that were cut, among the lines that this run has sealed.
    cut: int = 0

    def add(self, seal: Seal) -> None:
        """Take the next seal."""
        self.last = seal
        self.files[seal.file] = seal

    def lost(self, files: list[LogFile], oldest: float) -> list[Seal]:
        """The last seals of files that are not there any more, though they were written after `oldest`."""
        there = {file.identity for file in files}
        return [s for name, s in self.files.items() if name not in there and moment(s.newest) >= oldest]

    def kept(self, oldest: float) -> set[str]:
        """The files that must be there."""
        return {name for name, seal in self.files.items() if moment(seal.newest) >= oldest}


def load(path: Path) -> Chain:
    """Read the seals. Raises Broken, OSError."""
    chain, previous = Chain(), NOTHING
    for number, line in enumerate(read_lines(path), 1):
        try:
            seal = parse(line)
        except ValueError as error:
            seal, why = None, str(error)
        if seal is None or seal.seq != number or seal.link(previous) != seal.chain:
            told = "it does not follow the one before" if seal else why
            raise Broken(
                f"{path}, line {number}: this seal was altered ({told}), so nothing can be sealed after it. Run the"
                f" playbook audit, which names what else was altered; keep copies of {path} and of the logs; then move"
                " it away, and a new chain begins"
            )
        chain.add(seal)
        previous = seal.chain
    return chain


def stretches(stream: IO[bytes], most: int = STRETCH) -> Iterator[tuple[int, int, str, int]]:
    """What follows in a file, in stretches of whole lines: (bytes, lines, SHA-256, lines of answers that were cut).

    Raises Broken, and as reading does.
    """
    while True:
        data = stream.read(most)
        size = data.rfind(b"\n") + 1
        if size == 0:
            if len(data) == most:
                raise Broken(f"a line is longer than {most} bytes: Nginx did not write that")
            return
        yield size, data.count(b"\n"), hashlib.sha256(data[:size]).hexdigest(), data.count(CUT, 0, size)
        stream.seek(size - len(data), os.SEEK_CUR)


class SealFile:
    """The file of seals, to be added to. What a killed run left of its last line is cut off."""

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if new:
            _sync_folder(path.parent)
        self.size = sum(len(line) for line in read_lines(path))
        if os.fstat(self.descriptor).st_size > self.size:
            os.ftruncate(self.descriptor, self.size)

    def add(self, seal: Seal) -> None:
        """Write a seal so that it is on the disk, or not at all. Raises OSError."""
        line = seal.line()
        try:
            rest = line
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
            os.fsync(self.descriptor)
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.size += len(line)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal_new(log: Path, state: Path, days: int, now: float) -> tuple[Chain, int, list[str]]:
    """Seal all whole lines that are not sealed yet: (chain, new seals, what is wrong). Raises Broken, OSError."""
    path = state / SEALS
    chain = load(path)
    floor = moment(chain.last.time) if chain.last else 0
    oldest = now - days * DAY
    kept = chain.kept(oldest)
    files = find_all(log, kept, len(kept))
    problems = [f"{file.path} cannot be read: {file.fault}" for file in files if file.fault]
    problems += [
        f"{log.parent}/{seal.name}, of which {seal.end} bytes were sealed until {seal.time}, is gone or its first line"
        f" was altered; it must stay for {days} days"
        for seal in chain.lost(files, oldest)
    ]
    seals, count = SealFile(path), 0
    try:
        for file in files:
            if file.identity:
                count += _seal_file(file, chain, seals, (now, floor), problems)
    finally:
        seals.close()
    return chain, count, problems


def _seal_file(file: LogFile, chain: Chain, seals: SealFile, when: tuple[float, int], problems: list[str]) -> int:
    known = chain.files.get(file.identity)
    position, count = known.end if known else 0, 0
    now, floor = when
    try:
        more = file.may_hold_more(position)
        if more is None:
            problems.append(f"{file.path} has fewer bytes than the {position} that were sealed")
        if not more:
            return 0
        with file.open() as stream:
            stream.seek(position)
            # Whatever a file's times say: what is new now was written after the last seal.
            newest = stamp(max(min(os.stat(file.path).st_mtime, now), floor))
            for size, lines, digest, cut in stretches(stream):
                last = chain.last
                bare = Seal(
                    (last.seq if last else 0) + 1,
                    stamp(now),
                    file.identity,
                    file.path.name,
                    file.inode,
                    position,
                    position + size,
                    lines,
                    digest,
                    newest,
                )
                seal = bare.after(last.chain if last else NOTHING)
                try:
                    seals.add(seal)
                except OSError as error:
                    raise Broken(
                        f"the seals cannot be written ({error.strerror}): make room;"
                        " nothing is lost, the next run seals it"
                    ) from error
                chain.add(seal)
                chain.cut += cut
                position, count = position + size, count + 1
    except FileNotFoundError:
        return count  # it was renamed or compressed just now: the next run has it
    except DAMAGE as error:
        problems.append(f"{file.path} cannot be read after byte {position}: {error or 'it is damaged'}")
    return count


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(path)


def _cut_before(path: Path) -> int:
    """Answers that were cut, as the last run counted them; 0 where it left nothing that can be read."""
    try:
        return int(json.loads(path.read_text())["cut"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def metrics_text(run: float, chain: Chain, problems: int, cut: int) -> str:
    """The figures in Prometheus' text format."""
    rows = {
        "run_timestamp_seconds": ("When the audit log was last looked at and sealed", int(run)),
        "problems": ("Faults of the audit log that were seen then", problems),
        "seals": ("Seals in the chain", chain.last.seq if chain.last else 0),
    }
    lines = []
    for name, (told, value) in rows.items():
        metric = f"redoubt_gateway_audit_{name}"
        lines += [f"# HELP {metric} {told}", f"# TYPE {metric} gauge", f"{metric} {value}"]
    metric = "redoubt_gateway_answers_cut_total"
    lines += [
        f"# HELP {metric} Answers whose engine was lost before their end",
        f"# TYPE {metric} counter",
        f"{metric} {cut}",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Optional[list[str]] = None) -> int:
    """Entry point; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="sealing")
    parser.add_argument("--log", type=Path, required=True, help="the log; rotated files lie beside it, as LOG-*")
    parser.add_argument("--state-dir", type=Path, required=True, help="where the seals are")
    parser.add_argument("--days", type=int, required=True, help="how long files must stay")
    parser.add_argument("--metrics", type=Path, help="*.prom file in node exporter's folder")
    options = parser.parse_args(arguments)
    now = time.time()
    try:
        with only_run(options.state_dir / "lock", "the seals of the audit log", PATIENCE):
            chain, count, problems = seal_new(options.log, options.state_dir, options.days, now)
            cut = _cut_before(options.state_dir / STATUS) + chain.cut
            status = {"run": int(now), "seal": chain.last.seq if chain.last else 0, "problems": problems, "cut": cut}
            _write(options.state_dir / STATUS, json.dumps(status, indent=1) + "\n")
            if options.metrics and options.metrics.parent.is_dir():
                _write(options.metrics, metrics_text(now, chain, len(problems), cut))
    except (Broken, Busy, OSError) as error:
        print(f"<3>not sealed: {error}")  # `<3>` makes it an error in the journal
        return 1
    for problem in problems:
        print(f"<3>{problem}")
    if count:
        print(f"{count} seals, the last is {chain.last.seq if chain.last else 0}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
