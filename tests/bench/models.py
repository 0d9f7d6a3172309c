"""The models that are measured: one large file, and many files, behind a static Nginx that also speaks as the hub."""

from __future__ import annotations

import functools
import hashlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.web import Hub

from tests.support.image_archives import payload
from tests.support.static_nginx import StaticNginx, serving, write_hub
from tests.support.weight_trees import REVISIONS

MIB = 1 << 20
LARGE = int(os.environ.get("REDOUBT_BENCH_MIB", "4096")) * MIB
HUGE = int(os.environ.get("REDOUBT_BENCH_REPAIR_MIB", "10240")) * MIB
FILES, FILE_BYTES = 500, 4 * MIB + 99_999
ROUNDS = 3
COMMIT = REVISIONS[0]


@dataclass(frozen=True)
class Measured:
    """A model on a mirror."""

    nginx: StaticNginx
    model: Model

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return int(self.model.total_size)

    def url(self, path: str) -> str:
        """The address of one file."""
        return f"{self.nginx.base}/{self.model.repo}/resolve/{COMMIT}/{path}"

    def store(self, place: Path) -> Store:
        """Where it is published."""
        return Store(place / "models", place / "state")

    def bring(self, place: Path) -> Outcome:
        """Fetch and publish it."""
        _, (outcome,) = present(self.store(place), [self.model], [Hub(self.nginx.base)], Settings())
        result: Outcome = outcome
        return result


@contextmanager
def large(root: Path, limits: str = "", size: int = LARGE) -> Iterator[Measured]:
    """One file of random bytes."""
    block = payload(64 * MIB, 1)
    root.mkdir()
    with (root / "big").open("wb") as stream:
        for number in range(size // len(block)):
            stream.write(number.to_bytes(8, "big") + block[8:])
    with _measured(root, "large", {"big": root / "big"}, limits) as made:
        yield made


@contextmanager
def huge(root: Path) -> Iterator[Measured]:
    """One file of zeros, that takes no room here."""
    root.mkdir()
    with (root / "big").open("wb") as stream:
        stream.truncate(HUGE)
    with _measured(root, "huge", {"big": root / "big"}, "") as made:
        yield made


@contextmanager
def many(root: Path) -> Iterator[Measured]:
    """A tree of 500 files."""
    block = payload(FILE_BYTES, 1)
    root.mkdir()
    files = {f"{number:03}": root / f"{number:03}" for number in range(FILES)}
    for number, path in enumerate(files.values()):
        path.write_bytes(number.to_bytes(8, "big") + block[8:])
    with _measured(root, "many", files, "") as made:
        yield made


@contextmanager
def _measured(root: Path, name: str, files: Mapping[str, Path], limits: str) -> Iterator[Measured]:
    repo = f"org/{name}"
    write_hub(root, repo, COMMIT, files)
    entries = []
    for path, place in files.items():
        with place.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append({"path": path, "size": place.stat().st_size, "sha256": digest})
    (model,) = parse_models([{"name": name, "revision": COMMIT, "repo": repo, "files": entries}])
    with serving(root, limits) as nginx:
        yield Measured(nginx, model)


@dataclass
class Rounds:
    """MB/s of each round of each way, and the processor seconds that it took, its children's included."""

    size: int
    mb_per_second: dict[str, list[int]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Do it once."""
        before, began = _cpu(), time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        self.mb_per_second.setdefault(name, []).append(round(self.size / seconds / 1e6))
        self.cpu_seconds.setdefault(name, []).append(round(_cpu() - before, 2))

    def ratios(self, ours: str, others: Sequence[str]) -> dict[str, float]:
        """The median of our rounds over that of each of the others."""
        middle = {name: statistics.median(self.mb_per_second[name]) for name in (ours, *others)}
        return {name: round(middle[ours] / middle[name], 2) for name in others}

    def document(self) -> dict[str, Any]:
        """Both tables, a line for each way."""
        return {
            "mb_per_second": {name: " ".join(map(str, found)) for name, found in self.mb_per_second.items()},
            "cpu_seconds": {name: " ".join(map(str, found)) for name, found in self.cpu_seconds.items()},
        }


def _cpu() -> float:
    return sum(os.times()[:4])


def race(size: int, place: Path, ways: Mapping[str, Callable[[Path], object]]) -> Rounds:
    """Each way to have so many bytes in an empty folder, in turn, each time from the same start."""
    found = Rounds(size)
    for _ in range(ROUNDS):
        for name, work in ways.items():
            place.mkdir()
            found.measure(name, functools.partial(work, place))
            # The disk must not still be busy with what the one before has written.
            subprocess.run(["chmod", "-R", "u+w", place], check=True)
            subprocess.run(["rm", "-rf", place], check=True)
            subprocess.run(["sync"], check=True)
    return found


def quietly(command: Sequence[str], **settings: Any) -> None:
    """Run a command that must end well."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **settings)
