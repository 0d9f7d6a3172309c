"""A bundle of several volumes: what is wrong with one is named, it alone comes again, and a stopped import goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle import writing
from ansible.module_utils.bundle.building import Wishes, build
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.importing import Incomplete
from ansible.module_utils.bundle.signing import sign
from ansible.module_utils.depot.depot import Depot

from tests.support.bundles import Site, medium, several, volumes
from tests.support.limits import small_disk


@pytest.fixture
def made(tmp_path: Path) -> Site:
    return several(tmp_path)


def size_of(made: Site) -> int:
    return sum(map(len, made.contents.values()))


def model(made: Site) -> str:
    """The blob whose pieces are in every volume."""
    return max(made.contents, key=lambda sha256: len(made.contents[sha256]))


def longest(volume: Path) -> Path:
    """A piece of the model."""
    return max(volume.iterdir(), key=lambda path: (path.stat().st_size, path.name))


def flip(volume: Path) -> tuple[str, str]:
    path = longest(volume)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name, "its bytes have the sha256"


def cut_short(volume: Path) -> tuple[str, str]:
    path = longest(volume)
    os.truncate(path, path.stat().st_size - 1)
    return path.name, "expected 1000000 bytes, found 999999"


def lose(volume: Path) -> tuple[str, str]:
    path = longest(volume)
    path.unlink()
    return path.name, "is not there"


def lose_list(volume: Path) -> tuple[str, str]:
    (volume / "volume.json").unlink()
    return "volume.json", "is not there"


def cut_list_short(volume: Path) -> tuple[str, str]:
    os.truncate(volume / "volume.json", 100)
    return "volume.json", "is not the list that this bundle's manifest names"


FAULTS = [flip, cut_short, lose, lose_list, cut_list_short]


@pytest.mark.parametrize("name", ["volume-001", "volume-002", "volume-003"])
@pytest.mark.parametrize("spoil", FAULTS)
def test_a_fault_in_one_volume_is_named_and_that_volume_alone_mends_it(
    made: Site, tmp_path: Path, name: str, spoil: Callable[[Path], tuple[str, str]]
) -> None:
    assert len(volumes(made)) == 3
    shutil.copytree(made.bundle / name, tmp_path / "good")
    file, text = spoil(made.bundle / name)
    report = verify(made.bundle, [made.public])
    assert report.exit_code == 1
    assert [fault.path for fault in report.faults] == [f"{name}/{file}"]
    assert text in report.faults[0].text
    with pytest.raises(Refusal) as refused:
        made.bring()
    told = [line for line in refused.value.problems if "volume-" in line]
    assert len(told) == 1
    assert f"{made.bundle}/{name}/{file}: {text}" in told[0]
    assert made.published() is None
    shutil.rmtree(made.bundle / name)
    shutil.copytree(tmp_path / "good", made.bundle / name)
    made.bring()
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_media_before_and_after_a_bad_one_need_not_come_again(made: Site, tmp_path: Path) -> None:
    first, second, third = volumes(made)
    bad = medium(made, tmp_path / "bad", second)
    file, _ = flip(bad / second)
    with pytest.raises(Incomplete):
        made.bring(medium(made, tmp_path / "first", first))
    with pytest.raises(Refusal, match=f"{second}/{file}") as refused:
        made.bring(bad)
    assert not isinstance(refused.value, Incomplete)
    with pytest.raises(Incomplete, match=f"still to come: {second}\\. "):
        made.bring(medium(made, tmp_path / "third", third))
    assert made.published() is None
    made.bring(medium(made, tmp_path / "again", second))
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_a_missing_volume_of_several_is_named(made: Site) -> None:
    shutil.rmtree(made.bundle / "volume-002")
    report = verify(made.bundle, [made.public])
    assert (report.exit_code, [str(fault) for fault in report.faults]) == (
        1,
        ["volume-002/volume.json: this volume is not here"],
    )
    with pytest.raises(Incomplete, match=r"still to come: volume-002\. "):
        made.bring()
    assert made.published() is None


def test_what_came_before_is_not_named_as_still_to_come(made: Site, tmp_path: Path) -> None:
    assert made.bring(medium(made, tmp_path / "1", "volume-002"), partial=True).absent == ["volume-001", "volume-003"]
    assert made.bring(medium(made, tmp_path / "2", "volume-001"), partial=True).absent == ["volume-003"]
    # What was on its way is lost: the volumes with pieces of it have to come again.
    (made.far.blobs.partial / f"{model(made)}.import").unlink()
    assert made.bring(medium(made, tmp_path / "no"), partial=True).absent == volumes(made)
    assert made.bring(medium(made, tmp_path / "3", "volume-003"), partial=True).absent == ["volume-001", "volume-002"]
    assert made.published() is None
    made.bring()
    assert made.published() == made.lock
    assert list(made.far.blobs.partial.iterdir()) == []


def test_pieces_that_are_in_are_not_read_again(made: Site, tmp_path: Path) -> None:
    """The import of a volume ends after two of its three pieces of the model; the next run brings the third alone."""
    one = medium(made, tmp_path / "one", "volume-002")
    spare = longest(one / "volume-002")
    data = spare.read_bytes()
    spare.write_bytes(bytes(len(data)))
    with pytest.raises(Refusal, match=spare.name):
        made.bring(one)
    spare.write_bytes(data)
    read: list[int] = []
    assert made.bring(one, partial=True, tick=read.append).absent == ["volume-001", "volume-003"]
    assert sum(read) == len(data)
    read.clear()
    made.bring(one, partial=True, tick=read.append)
    assert read == []


def test_a_bundle_that_is_cut_another_way_goes_on_with_what_is_there(made: Site, tmp_path: Path) -> None:
    made.bring(medium(made, tmp_path / "one", "volume-002"), partial=True)
    other = tmp_path / "other"
    built = build(made.near, made.lock, other, Wishes(volume_size=3_500_000, piece=1_500_000))
    sign(other, built.manifest, made.secret)
    made.bring(other)
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_a_run_that_was_stopped_behind_the_last_piece_leaves_nothing(
    made: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after it took the model in, its list of pieces is still there: it goes, also when the blob is lost."""
    for name in ("volume-001", "volume-002"):
        made.bring(medium(made, tmp_path / name, name), partial=True)
    real = Path.unlink

    def stopped(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".pieces" and made.far.has(model(made), len(made.contents[model(made)])):
            raise KeyboardInterrupt
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt):
        made.bring()
    monkeypatch.undo()
    journal = made.far.blobs.partial / f"{model(made)}.pieces"
    kept = journal.read_bytes()
    made.bring()
    assert list(made.far.blobs.partial.iterdir()) == []
    journal.write_bytes(kept)
    made.far.blobs.path(model(made)).unlink()
    made.bring()
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_a_run_that_was_stopped_while_it_wrote_its_first_journal_leaves_nothing(
    made: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run has all volumes at once, so that it needs no journal."""

    def stopped(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "os", SimpleNamespace(**{**vars(os), "replace": stopped}))
    with pytest.raises(KeyboardInterrupt):
        made.bring(medium(made, tmp_path / "one", "volume-001"))
    monkeypatch.undo()
    assert [path.suffix for path in made.far.blobs.partial.iterdir() if path.name.startswith(".")] == [".new"]
    made.bring()
    assert made.published() == made.lock
    assert list(made.far.blobs.partial.iterdir()) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_an_import_needs_room_for_the_bytes_once(made: Site, tmp_path: Path, at_once: bool) -> None:
    with small_disk(tmp_path / "small", size_of(made) * 3 // 2) as disk:
        assert shutil.disk_usage(disk).total < 2 * size_of(made)
        made.far = Depot(disk / "depot", patience=1)
        for name in [] if at_once else volumes(made):
            made.bring(medium(made, tmp_path / name, name), partial=True)
        made.bring()
        assert made.published() == made.lock
        assert made.far.verify(deep=True) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_less_room_than_once_is_refused_before_the_first_byte(made: Site, tmp_path: Path, at_once: bool) -> None:
    folder = made.bundle if at_once else medium(made, tmp_path / "one", "volume-002")
    with small_disk(tmp_path / "small", size_of(made) * 9 // 10) as disk:
        made.far = Depot(disk / "depot", patience=1)
        with pytest.raises(Refusal, match=r"depot: [0-9]+ bytes are to come, and [0-9]+ are free; make room"):
            made.bring(folder, tick=lambda _: pytest.fail("a byte was read"))
        assert list(made.far.blobs.partial.iterdir()) == list(made.far.blobs.every()) == []
