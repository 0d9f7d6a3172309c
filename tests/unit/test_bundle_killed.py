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
from ansible.module_utils.bundle.document import Unreadable
from ansible.module_utils.bundle.signing import sign

from tests.support.bundle_child import program
from tests.support.bundles import Site, depot_at, site
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
        far = depot_at(tmp_path / "far")
        if far.lock("bank-north") is not None:
            assert far.lock("bank-north") == made.lock
            assert [fault for fault in far.verify(deep=True) if fault.kind != "stale"] == []
        else:
            bad = [fault for fault in far.verify(deep=True) if not fault.path.startswith("sites/")]
            assert bad == []
    assert killed > DRAWS // 2
    made.far = depot_at(tmp_path / "far")
    made.bring()
    assert made.published() == made.lock
    assert made.far.verify(deep=True) == []
    assert list(made.far.blobs.partial.iterdir()) == []


def test_signing_again_after_a_build_is_the_same(made: Site, tmp_path: Path) -> None:
    built = made.build()
    path = next(made.bundle.glob("*.minisig"))
    before = path.read_bytes()
    assert sign(made.bundle, built.manifest, made.secret) == path
    assert path.read_bytes() == before
