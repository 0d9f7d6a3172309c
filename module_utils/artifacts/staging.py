"""Bringing the files of one model into its private staging folder, each proved before it gets its name there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from .errors import Refusal
from .manifest import FileEntry, Model
from .progress import Progress
from .sources import Source
from .store import Store
from .transfer import hash_file, receive


@dataclass(frozen=True)
class _Arrival:
    """How one file arrived: bytes copied now, bytes found from an earlier run, or the problem."""

    copied: int = 0
    reused: int = 0
    problem: str = ""


def stage(
    store: Store,
    model: Model,
    needed: Sequence[FileEntry],
    source: Source | None,
    pool: Executor,
    progress: Progress,
) -> tuple[int, int]:
    """Stage files and return the bytes copied and the bytes reused from a run that was cut short.

    What an earlier run staged is hashed again, not trusted: its bytes may never have reached the disk.
    Raises Refusal naming each bad file; good ones stay for the next run.
    """

    def bring(numbered: tuple[int, FileEntry]) -> _Arrival:
        number, entry = numbered
        try:
            return _bring(store, model, entry, number, source, progress)
        except Refusal as refusal:
            return _Arrival(problem=f"model {model.name}: {refusal}")
        except OSError as error:
            return _Arrival(problem=f"model {model.name}: {entry.path}: {error.strerror or error}")

    # The largest first, so that the workers end at about the same time.
    ordered = sorted(enumerate(needed), key=lambda pair: -pair[1].size)
    arrivals = list(pool.map(bring, ordered))
    problems = [arrival.problem for arrival in arrivals if arrival.problem]
    if problems:
        raise Refusal([*problems, f"Nothing was published; {store.published(model)} is as it was"])
    return sum(item.copied for item in arrivals), sum(item.reused for item in arrivals)


def _bring(
    store: Store, model: Model, entry: FileEntry, number: int, source: Source | None, progress: Progress
) -> _Arrival:
    target = store.staged(model) / entry.path
    part = store.parts(model) / str(number)
    bad = "did not arrive"

    def tick(count: int) -> None:
        progress.add(count, f"{model.name}/{entry.path}")

    if target.is_file():
        digest, size = hash_file(target, tick)
        if (digest, size) == (entry.sha256, entry.size):
            return _Arrival(reused=size)
        target.unlink()
        bad = f"expected {entry.size} bytes with sha256 {entry.sha256}, found {size} bytes with {digest}"
    if source is None:
        raise Refusal(f"{entry.path} from the control host: {bad}")
    path = f"{model.name}/{entry.path}"
    reader = source.open(path, entry.size)
    try:
        receive(reader, entry, part, source.describe(path), tick)
    finally:
        reader.close()
    os.replace(part, target)
    return _Arrival(copied=entry.size)
