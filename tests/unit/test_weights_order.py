"""In which order bytes, names, proofs and trees come to the disk: what a power failure may leave is never a lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.artifacts import blobs, staging
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
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
