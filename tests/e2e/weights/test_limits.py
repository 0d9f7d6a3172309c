"""The module at the limits of a real host: disk full midway, nothing writable, little memory, a clock that jumps."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.locking import Choice, lock_folder
from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present, verified
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.board import Limits
from ansible.module_utils.fetch.sources import Folder
from ansible.module_utils.fetch.web import Web

from tests.support.image_archives import payload
from tests.support.limits import read_only, run_with_memory, small_disk
from tests.support.static_nginx import StaticNginx, serving
from tests.support.weight_trees import REVISIONS, model, write_tree

REPOSITORY = Path(__file__).resolve().parents[3]
MIB = 1 << 20
PIECE = MIB
FILES = {"config.json": b"{}", "a.dat": payload(24 * PIECE, 1), "b.dat": payload(24 * PIECE + 7, 2)}
DISK = 64 * MIB


def parsed(files: dict[str, bytes]) -> Model:
    (made,) = parse_models([model(files)])
    result: Model = made
    return result


WANTED = parsed(FILES)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[StaticNginx]:
    write_tree(tmp_path / "mirror/www/tiny", FILES)
    with serving(tmp_path / "mirror") as made:
        yield made


def bring(store: Store, nginx: StaticNginx, wanted: Model = WANTED, **limits: Any) -> Outcome:
    how = How(Limits(**{"retries": 3, "first_pause": 0.01, **limits}), PIECE)
    _, (outcome,) = present(store, [wanted], [Web(nginx.base)], Settings(how=how))
    result: Outcome = outcome
    return result


def assert_published(store: Store, wanted: Model = WANTED) -> None:
    for entry in wanted.files:
        assert hashlib.sha256((store.published(wanted) / entry.path).read_bytes()).hexdigest() == entry.sha256


def fill(disk: Path, leave: int) -> Path:
    """Somebody else's file, so large that so many bytes are free."""
    found = os.statvfs(disk)
    path = disk / "somebody-elses"
    path.write_bytes(bytes(found.f_bavail * found.f_frsize - leave))
    return path


def test_disk_that_is_too_small_is_told_before_a_byte_comes(tmp_path: Path, nginx: StaticNginx) -> None:
    with small_disk(tmp_path / "disk", DISK) as disk:
        store = Store(disk / "models", tmp_path / "state")
        fill(disk, 40 * MIB)
        with pytest.raises(Refusal, match=rf"{store.models}: needs \d+ more bytes: {WANTED.total_size} for files"):
            bring(store, nginx)
        assert nginx.total() == 0


def test_disk_that_fills_midway_publishes_nothing_and_the_next_run_goes_on(
    tmp_path: Path, nginx: StaticNginx, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds room enough; then another program takes it."""
    with small_disk(tmp_path / "disk", DISK) as disk:
        store = Store(disk / "models", tmp_path / "state")
        taken: list[Path] = []
        real = Web.channel

        def channel(source: Web) -> Any:
            if not taken:
                # One file is allocated or here by now, the other one does not fit any more.
                taken.append(fill(disk, 4 * MIB))
            return real(source)

        monkeypatch.setattr(Web, "channel", channel)
        with pytest.raises(Refusal, match=r"no space left below .*/partial: the file has \d+ bytes, \d+ are free"):
            bring(store, nginx, lanes=1, connections=1)
        assert not store.published(WANTED).parent.exists()
        monkeypatch.undo()
        with pytest.raises(Refusal, match=r"needs \d+ more bytes|no space left"):
            bring(store, nginx)
        taken[0].unlink()
        before = nginx.total()
        assert bring(store, nginx).state == "published"
        assert nginx.total() - before < WANTED.total_size  # what had arrived was of use
        assert_published(store)


def test_store_that_cannot_be_written_is_read_and_told(tmp_path: Path, nginx: StaticNginx) -> None:
    store = Store(tmp_path / "all/models", tmp_path / "all/state")
    bring(store, nginx)
    with read_only(tmp_path / "all"):
        (verdict,) = verified(store, [WANTED], Settings(), True)
        assert (verdict["ok"], verdict["bytes_hashed"]) == (True, WANTED.total_size)
        changed, _ = present(store, [WANTED], [], Settings(check=True))
        assert changed is False
        with pytest.raises(OSError, match="Read-only file system") as caught:
            bring(store, nginx, parsed({**FILES, "new.dat": b"new"}))
        assert str(tmp_path / "all") in str(caught.value)
    assert bring(store, nginx).state == "present"


def test_clock_that_jumps_back_all_the_time_spoils_nothing(
    tmp_path: Path, nginx: StaticNginx, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]

    def clock() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", clock)
    store = Store(tmp_path / "models", tmp_path / "state")
    settings = Settings(how=How(Limits(), PIECE), progress_file=tmp_path / "progress.json")
    _, (outcome,) = present(store, [WANTED], [Web(nginx.base)], settings)
    assert outcome.state == "published"
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert progress["finished"] is True
    assert progress["bytes_per_second"] >= 0
    assert progress["seconds"] >= 0
    changed, (outcome,) = present(store, [WANTED], [], settings)
    assert (changed, outcome.bytes_hashed) == (False, 0)
    assert_published(store)


def test_bits_that_flip_anywhere_in_store_and_tree_are_found_and_mended(tmp_path: Path, nginx: StaticNginx) -> None:
    store = Store(tmp_path / "models", tmp_path / "state")
    bring(store, nginx)
    dice = random.Random(20)  # noqa: S311 - places, not secrets
    for _ in range(20):
        name = dice.choice(["a.dat", "b.dat"])
        path = store.published(WANTED) / name
        at = dice.randrange(len(FILES[name]))
        path.chmod(0o644)
        with path.open("r+b") as stream:
            stream.seek(at)
            stream.write(bytes([FILES[name][at] ^ 1 << dice.randrange(8)]))
        before = nginx.total()
        outcome = bring(store, nginx)
        assert (outcome.state, outcome.fetched) == ("mended", [name])
        assert nginx.total() - before <= PIECE
        assert_published(store)


def test_renamed_file_gets_its_name_back_without_a_byte_fetched(tmp_path: Path, nginx: StaticNginx) -> None:
    store = Store(tmp_path / "models", tmp_path / "state")
    bring(store, nginx)
    tree = store.published(WANTED)
    tree.chmod(0o755)
    (tree / "a.dat").rename(tree / "c.dat")
    (verdict,) = verified(store, [WANTED], Settings(), False)
    assert {(fault["path"], fault["kind"]) for fault in verdict["faults"]} == {
        ("a.dat", "missing"),
        ("c.dat", "unlisted"),
    }
    before = nginx.total()
    outcome = bring(store, nginx)
    assert (outcome.state, outcome.removed, nginx.total() - before) == ("mended", ["c.dat"], 0)
    assert sorted(path.name for path in tree.iterdir()) == sorted(FILES)


def test_device_is_refused_as_a_source_and_replaced_in_a_tree(tmp_path: Path, nginx: StaticNginx) -> None:
    write_tree(tmp_path / "medium/tiny", FILES)
    place = tmp_path / "medium/tiny/a.dat"
    place.unlink()
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: endless bytes
    except PermissionError as error:
        pytest.skip(f"no device can be made here ({error}); root on a whole machine can")
    with pytest.raises(Refusal, match=r"a\.dat is not a regular file"):
        lock_folder(tmp_path / "medium/tiny", "", Choice())
    store = Store(tmp_path / "models", tmp_path / "state")
    with pytest.raises(Refusal, match=r"a\.dat"):
        present(store, [WANTED], [Folder(tmp_path / "medium")], Settings())
    bring(store, nginx)
    tree = store.published(WANTED)
    tree.chmod(0o755)
    (tree / "a.dat").unlink()
    os.mknod(tree / "a.dat", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (verdict,) = verified(store, [WANTED], Settings(), True)
    assert [fault["kind"] for fault in verdict["faults"]] == ["kind"]
    assert bring(store, nginx).state == "mended"
    assert_published(store)


@pytest.mark.slow
def test_file_of_20_gib_within_2_gib_of_memory(tmp_path: Path) -> None:
    """Page cache included: a control group counts it, and takes the process's life when it holds on to too much."""
    size = 20 << 30
    (tmp_path / "mirror/www/huge").mkdir(parents=True)
    with (tmp_path / "mirror/www/huge/big.dat").open("wb") as stream:
        stream.truncate(size)
    digest, block = hashlib.sha256(), bytes(16 * MIB)
    for _ in range(size // len(block)):
        digest.update(block)
    entry = {"path": "big.dat", "size": size, "sha256": digest.hexdigest()}
    order = {"name": "huge", "revision": REVISIONS[0], "files": [entry]}
    code = (
        "import sys,json;from pathlib import Path;import tests.conftest;"
        "from tests.e2e.weights import test_limits as t;"
        "place=Path(sys.argv[2]);store=t.Store(place/'models',place/'state');"
        "_,(o,)=t.present(store,t.parse_models([json.loads(sys.argv[3])]),[t.Web(sys.argv[1])],t.Settings());"
        "print(o.state,o.bytes_copied)"
    )
    with serving(tmp_path / "mirror") as nginx:
        command = [sys.executable, "-c", code, nginx.base, str(tmp_path), json.dumps(order)]
        said, peak = run_with_memory(command, 2 << 30, f"redoubt-test-{os.getpid()}", REPOSITORY)
    assert said.split() == ["published", str(size)]
    assert peak <= 2 << 30
    for path in (tmp_path / "models").rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
