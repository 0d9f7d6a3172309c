"""Gather brings what a depot lacks, each kind from a real place; what fails is named, and what came stays."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.gather.archives import lock_archive
from ansible.module_utils.gather.job import lacking
from ansible.module_utils.gather.registry import Registry, lock_reference
from ansible.module_utils.lock.document import sealed

from library.gather import run
from tests.support import image_archives, lock_documents, stub_registry
from tests.support.lock_documents import AMD64, Contents

REPOSITORY = Path(__file__).resolve().parents[2]
BIG = bytes(range(256)) * 40_000
Gather = Callable[..., dict[str, Any]]


class Connected:
    """The connected side: folders with what a lock lists, and the lock."""

    def __init__(self, root: Path) -> None:
        self.root, self.contents = root, Contents()
        for name in ("pool", "images", "models/small/deep", "wheels"):
            (root / name).mkdir(parents=True)
        lock, contents = lock_documents.make()
        platform = lock["platforms"][AMD64]
        for row in platform["packages"]:
            file = root / "pool" / Path(row["path"]).name
            file.write_bytes(contents[row["sha256"]])
            row["origin"] = file.as_uri()
        self.index = contents[platform["indexes"][0]["sha256"]].decode()
        built = image_archives.build(root / "images/small.tar", ["redoubt.test/small:1"], b"hello" * 9999)
        self.images = {"small": lock_archive(root / "images", built.entry("redoubt.test/small"))}
        files = {"config.json": b"{}", "deep/model.safetensors": BIG}
        for path, data in files.items():
            (root / "models/small" / path).write_bytes(data)
        self.project = root / "redoubt.tar"
        self.project.write_bytes(b"tree" * 2000)
        self.body: dict[str, Any] = {
            "platforms": {AMD64: platform},
            "images": self.images,
            "models": {
                "small": {
                    "revision": "0123456789abcdef0123456789abcdef01234567",
                    "license": "apache-2.0",
                    "origin": "test",
                    "files": [{"path": path, **self.contents.keep(data)} for path, data in sorted(files.items())],
                }
            },
            "python": {
                "requirements": "0" * 64,
                "targets": [{"python": "3.13", "platform": "manylinux_2_28_x86_64"}],
                "files": [self._wheel("tiny")],
            },
            "project": {
                "version": "1",
                "commit": "0" * 40,
                "file": "redoubt.tar",
                **self.contents.keep(self.project.read_bytes()),
            },
            "keys": [],
        }

    def _wheel(self, name: str) -> dict[str, Any]:
        path = self.root / "wheels" / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as out:
            out.writestr(f"{name}.py", "")
            out.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            out.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            out.writestr(f"{name}-1.0.dist-info/RECORD", "")
        row = {"name": name, "version": "1.0", "file": path.name, "origin": "pip"}
        return {**row, **self.contents.keep(path.read_bytes())}

    @property
    def lock(self) -> dict[str, Any]:
        """The lock as it stands now."""
        made: dict[str, Any] = sealed(self.body, "bank-north")
        return made


@pytest.fixture
def connected(tmp_path: Path) -> Connected:
    return Connected(tmp_path / "connected")


@pytest.fixture
def parameters(tmp_path: Path, connected: Connected) -> Callable[[], dict[str, Any]]:
    def made() -> dict[str, Any]:
        root = connected.root
        return {
            "lock": connected.lock,
            "indexes": {f"{AMD64}/Packages": connected.index},
            "packages": None,
            "directory": str(tmp_path / "depot"),
            "images": f"file://{root}/images",
            "models": [f"file://{root}/models"],
            "project": str(connected.project),
            "python": "",
            "python_index": f"file://{root}/wheels",
            "ca_file": "",
            "proxy": "",
            "no_proxy": "",
            "connections": 4,
            "bandwidth": 0,
            "timeout": 120,
            "progress_file": str(tmp_path / "progress.json"),
        }

    return made


@pytest.fixture
def gather(parameters: Callable[[], dict[str, Any]]) -> Gather:
    def call(*, check: bool = False, **changes: Any) -> dict[str, Any]:
        return run({**parameters(), **changes}, check)

    return call


def test_everything_comes_once_and_the_lock_can_be_put_in_force(
    tmp_path: Path, connected: Connected, gather: Gather
) -> None:
    depot = Depot(tmp_path / "depot")
    expected = len(lacking(depot, connected.lock))
    told = gather(check=True)
    assert (told["changed"], len(told["missing"])) == (True, expected)
    assert not (tmp_path / "depot").exists()
    assert len(gather()["missing"]) == expected
    assert lacking(depot, connected.lock) == []
    assert depot.publish(connected.lock)
    assert depot.verify(deep=True) == []
    again = gather()
    assert (again["changed"], again["missing"]) == (False, [])
    assert not [path for path in (tmp_path / "depot/state/gather").rglob("*") if path.is_file()]


def test_packages_that_the_lock_fetched_are_not_fetched_again(
    tmp_path: Path, connected: Connected, gather: Gather
) -> None:
    """Nothing but them is there any more: a repository may have dropped a version since."""
    kept = tmp_path / "kept"
    for row in connected.lock["platforms"][AMD64]["packages"]:
        path = kept / AMD64 / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        (connected.root / "pool" / path.name).rename(path)
    path.write_bytes(b"of somebody else")
    with pytest.raises(Refusal, match=re.escape(f"{path.name} from ")):
        gather(packages=str(kept))
    left = [part.name for part in lacking(Depot(tmp_path / "depot"), connected.lock)]
    assert left == [row["name"]]
    assert path.read_bytes() == b"of somebody else"


def spoil_package(connected: Connected) -> str:
    path = next((connected.root / "pool").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return path.name


def spoil_image(connected: Connected) -> str:
    path = connected.root / "images/small.tar"
    path.write_bytes(path.read_bytes().replace(b"hellohello", b"hellOhello", 1))
    return "image small"


def spoil_model(connected: Connected) -> str:
    path = connected.root / "models/small/deep/model.safetensors"
    path.write_bytes(BIG[:-1] + b"x")
    return "deep/model.safetensors"


def spoil_wheel(connected: Connected) -> str:
    path = next((connected.root / "wheels").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    return path.name


def spoil_project(connected: Connected) -> str:
    connected.project.write_bytes(b"other")
    return "redoubt.tar"


@pytest.mark.parametrize("spoil", [spoil_package, spoil_image, spoil_model, spoil_wheel, spoil_project])
def test_wrong_bytes_are_named_and_left_out_and_the_others_stay(
    tmp_path: Path, connected: Connected, gather: Gather, spoil: Callable[[Connected], str]
) -> None:
    lock = connected.lock
    name = spoil(connected)
    with pytest.raises(Refusal, match=r"came and stay; run this again") as refusal:
        gather(lock=lock)
    assert name in str(refusal.value)
    depot = Depot(tmp_path / "depot")
    missing = lacking(depot, lock)
    assert 0 < len(missing) < len(lacking(Depot(tmp_path / "empty"), lock))
    with pytest.raises(Refusal):
        depot.publish(lock)
    for path in (tmp_path / "depot/blobs/sha256").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_what_was_spoilt_comes_when_it_is_right_again(tmp_path: Path, connected: Connected, gather: Gather) -> None:
    name = spoil_model(connected)
    lock = connected.lock
    with pytest.raises(Refusal, match=name):
        gather(lock=lock)
    (connected.root / "models/small" / name).write_bytes(BIG)
    assert [row["path"].rpartition("/")[2] for row in gather(lock=lock)["missing"]] == ["model.safetensors"]
    assert lacking(Depot(tmp_path / "depot"), lock) == []


def test_remains_of_a_run_that_died_do_no_harm(tmp_path: Path, connected: Connected, gather: Gather) -> None:
    depot = Depot(tmp_path / "depot")
    depot.prepare()
    model = hashlib.sha256(BIG).hexdigest()
    (depot.blobs.partial / model).write_bytes(b"\0" * len(BIG))
    staged = depot.root / "state/gather" / AMD64 / connected.body["platforms"][AMD64]["packages"][0]["path"]
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"half of a package")
    gather()
    assert depot.publish(connected.lock)
    assert depot.verify(deep=True) == []


def test_a_run_that_is_killed_leaves_good_bytes_alone_and_is_continued(
    tmp_path: Path, connected: Connected, parameters: Callable[[], dict[str, Any]], gather: Gather
) -> None:
    (tmp_path / "parameters.json").write_text(json.dumps(parameters()))
    command = [sys.executable, "-m", "tests.support.gather_child", str(tmp_path / "parameters.json")]
    depot, killed = Depot(tmp_path / "depot"), 0
    draw = random.Random(7)  # noqa: S311 - test data
    for _ in range(8):
        with subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True) as child:
            try:
                child.wait(draw.uniform(0.2, 1.6))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                killed += 1
        for path in (tmp_path / "depot/blobs/sha256").glob("*/*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        if draw.random() < 0.5:
            shutil.rmtree(tmp_path / "depot", ignore_errors=True)  # the next one is killed on its way again
    assert killed
    gather()
    assert depot.publish(connected.lock)
    assert depot.verify(deep=True) == []


def test_images_come_from_a_registry_with_its_token(tmp_path: Path, connected: Connected, gather: Gather) -> None:
    with stub_registry.running() as stub:
        stub.push("team/app", "1", ("amd64", "arm64"))
        wish = {"name": f"{stub.host}/team/app", "tag": "1"}
        row = lock_reference(Registry(), wish, ["linux/amd64"])
        connected.body["images"] = {"app": {**row, "name": "team/app"}}
        gather(images=f"registry://{stub.host}")
        blob = next(item for item in row["blobs"] if item["media_type"].endswith("tar"))
        stub.blobs[f"sha256:{blob['sha256']}"] = b"x" * blob["size"]
        with pytest.raises(Refusal, match="image app"):
            gather(images=f"registry://{stub.host}", directory=str(tmp_path / "other"))
    assert lacking(Depot(tmp_path / "depot"), connected.lock) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": []}, "nobody said where they are"),
        ({"project": None}, "run this from a git checkout"),
        ({"images": "registry"}, "the lock has it from the archive small.tar"),
        ({"indexes": {}}, f"lock/platforms/{AMD64}: the list Packages is missing"),
        ({"models": ["file:///not/there"]}, "/not/there/small/config.json: is missing there"),
    ],
)
def test_a_place_that_nobody_named_is_told(gather: Gather, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        gather(**changes)


def test_a_broken_lock_is_refused_before_anything_is_made(tmp_path: Path, connected: Connected, gather: Gather) -> None:
    with pytest.raises(Refusal, match="digest is"):
        gather(lock={**connected.lock, "digest": "sha256:" + "0" * 64})
    assert not (tmp_path / "depot").exists()
