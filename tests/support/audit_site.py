"""An audit log with its rotated files and its seals, at a time of its own."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.audit.chain import stamp
from ansible.module_utils.audit.sealing import seal_new
from ansible.module_utils.audit.verifying import Report, verify

DAY = 86400


@dataclass
class Site:
    """A log with its seals, at a time of its own."""

    root: Path
    now: float
    count: int = 0

    @property
    def log(self) -> Path:
        return self.root / "gateway.jsonl"

    @property
    def seals(self) -> Path:
        return self.root / "seals.jsonl"

    def write(self, lines: int = 3) -> None:
        with self.log.open("a") as stream:
            for _ in range(lines):
                self.count += 1
                stream.write(
                    json.dumps({"time": stamp(self.now)[:-1] + "+00:00", "request": f"{self.count:06}"}) + "\n"
                )
        os.utime(self.log, (self.now, self.now))

    def rotate(self) -> Path:
        return self.log.rename(self.log.with_name(f"{self.log.name}-{self.count:06}"))

    def pack(self, path: Path) -> Path:
        times = path.stat().st_mtime
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        os.utime(packed, (times, times))
        return packed

    def seal(self) -> list[str]:
        self.now += 300
        problems: list[str] = seal_new(self.log, self.root, 90, self.now)[2]
        return problems

    def verify(self, head: dict[str, Any] | None = None) -> Report:
        return verify(self.log, self.root, 90, self.now, head)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.seals.read_text().splitlines()]


def with_six_seals(folder: Path) -> Site:
    """Three seals of the log that is written, one of a rotated file, two of a compressed one."""
    made = Site(folder, time.time() - DAY)
    for rounds, packed in ((2, True), (1, False)):
        for _ in range(rounds):
            made.write()
            assert made.seal() == []
        rotated = made.rotate()
        if packed:
            made.pack(rotated)
    for _ in range(3):
        made.write()
        assert made.seal() == []
    return made


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Alter a file in place."""
    path.write_bytes(change(path.read_bytes()))


def lines_but(number: int) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(line for at, line in enumerate(data.splitlines(keepends=True)) if at != number)


def exchanged(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    return b"".join(lines)
