"""SIGKILL at 20 drawn moments of a build and of an import: half is never taken for whole, and the next run ends it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.bundle.building import Wishes
from ansible.module_utils.bundle.checking import verify
from ansible.module_utils.bundle.document import Unreadable, contents
from ansible.module_utils.bundle.signing import sign

from tests.support.bundle_child import program
from tests.support.bundles import Site, depot_at, medium, several, site, volumes
from tests.support.site import REPOSITORY

DRAWS = 20


def child(action: str, folder: Path, last: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(action, folder, last), cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )


def moments(action: str, folder: Path) -> list[int]:
    """Draw the touches at which the process dies, all over its whole length."""
    done = child(action, folder, 0)
    assert done.returncode == 0, done.stderr
    chance = random.Random(action)  # noqa: S311  # the same draws each time
    return sorted(chance.sample(range(1, int(done.stdout) + 1), DRAWS))


def files(folder: Path) -> dict[str, bytes]:
    """All files of a bundle but its signatures."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".minisig")
    return {path.name: path.read_bytes() for path in found}


@pytest.fixture
def made(tmp_path: Path) -> Site:
    small = site(tmp_path)
    (tmp_path / "lock.json").write_text(json.dumps(small.lock))
    return small


def test_a_killed_build_leaves_no_bundle_and_goes_on(made: Site, tmp_path: Path) -> None:
    draws = moments("build", tmp_path)
    whole = files(made.bundle)
    shutil.rmtree(made.bundle)
    killed = 0
    for last in draws:
        died = child("build", tmp_path, last)
        killed += died.returncode == -9
        if (made.bundle / "manifest.json").exists():  # it is written last
            assert whole.items() <= files(made.bundle).items()
        else:
            with pytest.raises(Unreadable):
                verify(made.bundle, [made.public])
    assert killed > DRAWS // 2
    built = made.build(wishes=Wishes(piece=20_000))
    assert {
        path.name: path.read_bytes() for path in made.bundle.rglob("*") if path.suffix != ".minisig" and path.is_file()
    } == whole
    assert verify(made.bundle, [made.public]).faults == []
    assert built.manifest.digest == made.lock["digest"]


def shows_nothing_or_all(made: Site) -> None:
    """The lock is in force or not, and every byte that is there is good."""
    faults = made.far.verify(deep=True)
    if made.published() is not None:
        assert made.published() == made.lock
        assert [fault for fault in faults if fault.kind != "stale"] == []
    else:
        assert [fault for fault in faults if not fault.path.startswith("sites/")] == []


def test_a_killed_import_shows_nothing_or_all_and_goes_on(made: Site, tmp_path: Path) -> None:
    made.build(wishes=Wishes(piece=20_000))
    draws = moments("import", tmp_path)
    shutil.rmtree(tmp_path / "far")
    killed = 0
    for number, last in enumerate(draws):
        if number % 5 == 0:  # now and then from an empty depot, else where the killed one stopped
            shutil.rmtree(tmp_path / "far", ignore_errors=True)
        died = child("import", tmp_path, last)
        killed += died.returncode == -9
        made.far = depot_at(tmp_path / "far")
        shows_nothing_or_all(made)
    assert killed > DRAWS // 2
    made.bring()
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_a_killed_import_of_several_volumes_goes_on_with_the_pieces_that_are_in(tmp_path: Path) -> None:
    """One medium after the other, so that the pieces of one blob come scattered; killed while the second comes."""
    made = several(tmp_path)
    (tmp_path / "media").mkdir()
    for name in volumes(made):
        medium(made, tmp_path / "media" / name, name)
    shutil.rmtree(tmp_path / "far")
    done = child("media", tmp_path, 0)
    assert done.returncode == 0, done.stderr
    second = int(done.stdout.split()[1])
    chance = random.Random("media")  # noqa: S311  # the same draws each time
    blob, size = max(contents(made.lock).items(), key=lambda item: item[1])
    seen = set()
    for last in chance.sample(range(second - 30, second + 1), DRAWS):
        shutil.rmtree(tmp_path / "far")
        assert child("media", tmp_path, last).returncode == -9
        made.far = depot_at(tmp_path / "far")
        shows_nothing_or_all(made)
        proved = 0 if made.far.has(blob, size) else pieces_in(made, blob)
        lacking = sum(count for sha256, count in contents(made.lock).items() if not made.far.has(sha256, count))
        seen.add(proved)
        read: list[int] = []
        made.bring(tick=read.append)
        assert sum(read) <= lacking - proved  # less where a small file was stopped half-way
        assert made.published() == made.lock
        assert made.far.verify(deep=True) == []
        assert list(made.far.blobs.partial.iterdir()) == []
    assert seen >= {1_000_000, 2_000_000, 3_000_000}  # or no moment between two pieces was drawn


def pieces_in(made: Site, blob: str) -> int:
    """How many bytes of a blob are in and proved, as the journal beside them says."""
    journal = made.far.blobs.partial / f"{blob}.pieces"
    return sum(json.loads(journal.read_text())["sizes"].values()) if journal.exists() else 0


def test_signing_again_after_a_build_is_the_same(made: Site, tmp_path: Path) -> None:
    built = made.build()
    path = next(made.bundle.glob("*.minisig"))
    before = path.read_bytes()
    assert sign(made.bundle, built.manifest, made.secret) == path
    assert path.read_bytes() == before
