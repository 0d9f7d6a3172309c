"""install.pyz: one file that a bare machine's Python runs, always of the same bytes; what it does to the machine."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.errors import Refusal

from installer import machine, pack
from tests.support.site import REPOSITORY


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The file as a bundle has it."""
    return tmp_path / str(pack.write(tmp_path)["file"])


def run(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python without site packages and without this folder, as on a bare machine."""
    command = [sys.executable, "-I", "-S", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_a_bare_python_runs_it(program: Path, tmp_path: Path) -> None:
    done = run(program, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--key PUB" in done.stdout


def test_a_control_host_runs_it_from_its_tree(tmp_path: Path) -> None:
    done = run(REPOSITORY / "installer", "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--previous" in done.stdout


def test_the_same_tree_gives_the_same_bytes(program: Path) -> None:
    assert program.read_bytes() == pack.content(REPOSITORY)


def test_what_is_no_bundle_is_refused_in_a_line(program: Path, tmp_path: Path) -> None:
    done = run(
        program, "--key", "nothing.pub", "--depot", tmp_path / "depot", "--into", tmp_path / "in", folder=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("install.pyz: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "in").exists()


def archive(path: Path, name: str) -> Path:
    """A tree with one file."""
    with tarfile.open(path, "w") as tar:
        row = tarfile.TarInfo(name)
        row.size = 2
        tar.addfile(row, io.BytesIO(b"x\n"))
    return path


def test_a_tree_is_unpacked_once(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.tar", "redoubt-1/file")
    assert machine.unpack(source, tmp_path / "at/tree") is True
    assert (tmp_path / "at/tree/file").read_text() == "x\n"
    assert machine.unpack(source, tmp_path / "at/tree") is False


@pytest.mark.parametrize("name", ["../outside", "redoubt-1/../../outside"])
def test_a_tree_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match="cannot be unpacked"):
        machine.unpack(archive(tmp_path / "a.tar", name), tmp_path / "at/tree")
    assert list((tmp_path / "at").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_a_link_takes_nobodys_place(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    machine.link(tmp_path / "control", tmp_path / "tree")
    assert (tmp_path / "control").resolve() == tmp_path / "tree"
    (tmp_path / "mine").mkdir()
    with pytest.raises(Refusal, match="no link of ours"):
        machine.link(tmp_path / "mine", tmp_path / "tree")


def test_what_runs_left_is_there_for_the_next_tree(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        machine.share(tmp_path / name / ".runs", tmp_path / "runs")
        machine.share(tmp_path / name / ".runs", tmp_path / "runs")
    (tmp_path / "first/.runs/host.json").write_text("x")
    assert (tmp_path / "second/.runs/host.json").read_text() == "x"
