"""In which order bytes, names, proofs and trees come to the disk: what a power failure may leave is never a lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import blobs, staging
from ansible.module_utils.artifacts.blobs import Blobs
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch import job as job_module
from ansible.module_utils.fetch.job import Job
from ansible.module_utils.fetch.journal import Journal
from ansible.module_utils.fetch.line import Limits
from ansible.module_utils.fetch.sources import Folder

from tests.support.image_archives import payload
from tests.support.weight_trees import digest, model, write_tree

PIECE = 64 << 10
SMALL = {f"small-{number}": b"%d" % number for number in range(40)}
LARGE = {"large-1": payload(3 * PIECE, 1), "large-2": payload(2 * PIECE + 1, 2)}


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened while a model of small and large files was published."""
    seen: list[str] = []
    files = {**SMALL, **LARGE}
    large = {digest(data) for data in LARGE.values()}
    small = {digest(data) for data in SMALL.values()}
    sync_all, sync_folder, note, publish = (
        staging.sync_file_system, blobs.sync_folder, Ledger.note, Store.publish
    )  # fmt: skip

    def on_note(ledger: Ledger, found: os.stat_result, sha256: str, when: float | None = None) -> None:
        if sha256 in small | large:
            seen.append("small proved" if sha256 in small else "large proved")
        note(ledger, found, sha256, when)

    def on_sync(folder: Path) -> None:
        seen.append("names")
        sync_folder(folder)

    def on_sync_all(folder: str) -> None:
        seen.append("small bytes")
        sync_all(folder)

    def on_publish(*arguments: object) -> None:
        seen.append("published")
        publish(*arguments)

    monkeypatch.setattr(Ledger, "note", on_note)
    monkeypatch.setattr(blobs, "sync_folder", on_sync)
    monkeypatch.setattr(staging, "sync_file_system", on_sync_all)
    monkeypatch.setattr(Store, "publish", on_publish)
    write_tree(tmp_path / "source/tiny", files)
    store = Store(tmp_path / "models", tmp_path / "state")
    present(store, parse_models([model(files)]), [Folder(tmp_path / "source")], Settings(how=How(piece=PIECE)))
    return seen


def test_nothing_is_proved_before_it_is_on_the_disk_and_nothing_published_before_its_names(events: list[str]) -> None:
    published = events.index("published")
    before = events[:published]
    assert before.count("small proved") == len(SMALL)
    assert before.index("small bytes") < before.index("small proved")
    assert before[-1] == "names"  # synced after the last proof, and then only the tree
    for place, event in enumerate(before):
        if event == "large proved":
            assert "names" in before[max(0, place - 3) : place]


def test_small_files_cost_one_sync_together(events: list[str]) -> None:
    upto = events.index("small bytes")
    assert events.count("small bytes") == 1
    assert events[:upto].count("names") == 2 * len(LARGE)


def test_bytes_reach_the_disk_before_their_record_and_a_large_file_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection, and the disk asked after every piece; with more, a piece's CRC tells a record that came first."""
    seen: list[str] = []
    data = LARGE["large-1"]

    def spy(place: Any, name: str, told: Callable[..., str]) -> None:
        work = getattr(place, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            result = work(*arguments, **named)
            seen.append(told(*arguments))
            return result

        monkeypatch.setattr(place, name, watched)

    def file(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return {digest(data): "bytes", f"{digest(data)}.journal": "records"}.get(path.name, "another")

    monkeypatch.setattr(job_module, "SYNC_BYTES", 1)
    spy(Job, "write", lambda job, data, offset: f"piece {offset // PIECE} written")
    spy(Journal, "add", lambda journal, index, crc, giver: f"piece {index} recorded")
    spy(os, "fdatasync", lambda descriptor: f"{file(descriptor)} on the disk")
    spy(os, "fsync", lambda descriptor: f"whole file of {file(descriptor)} on the disk")
    spy(Blobs, "take_in", lambda blobs, path, sha256: "named")
    write_tree(tmp_path / "source/tiny", {"large-1": data})
    store, how = Store(tmp_path / "models", tmp_path / "state"), How(Limits(connections=1), PIECE)
    present(store, parse_models([model({"large-1": data})]), [Folder(tmp_path / "source")], Settings(how=how))
    named = seen.index("named")
    whole = seen.index("whole file of bytes on the disk")
    assert whole < named
    # The proof follows the last piece at once, so the whole file may be synced beside it.
    pieces = seen[:whole] + seen[whole + 1 : named]
    in_order = ("piece {} written", "piece {} recorded", "bytes on the disk", "records on the disk")
    assert pieces == [step.format(index) for index in range(3) for step in in_order]
