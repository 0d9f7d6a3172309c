"""install.pyz: one file that a bare machine's Python runs, always of the same bytes; what it does to the machine."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal

from installer import machine, pack, steps
from tests.support.bundles import Site, site
from tests.support.lock_documents import changed
from tests.support.site import REPOSITORY
from tests.unit.test_cli_launcher import pip_wheel


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


@pytest.fixture
def imported(tmp_path: Path) -> Site:
    """A depot with a lock in force and one from before."""
    made = site(tmp_path)
    made.build()
    made.bring()
    made.build(changed(made.lock, lambda body: body.update(keys=[])), tmp_path / "second")
    made.bring(tmp_path / "second")
    return made


@pytest.mark.parametrize("kind", ["project", "wheel"])
def test_what_the_depot_lacks_of_the_lock_before_is_named(
    imported: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    row = imported.lock["project"] if kind == "project" else imported.lock["python"]["files"][0]
    imported.far.blobs.path(row["sha256"]).unlink()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert steps.main(["--previous", "--depot", str(imported.far.root), "--into", str(tmp_path / "control")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"install.pyz: {imported.far.root}: the depot lacks 1 file of the lock of site bank-north")
    assert "gather or import them first" in said
    assert f"{row['file']} (sha256 {row['sha256']})" in said
    assert not (tmp_path / "control").exists()


def test_a_tree_that_is_not_in_the_view_is_named_with_what_to_do(imported: Site, tmp_path: Path) -> None:
    view = imported.far.link("bank-north")
    path = view / "project" / imported.lock["project"]["file"]
    path.unlink()
    with pytest.raises(Refusal, match=f"{path}: cannot be unpacked .* import the bundle again"):
        steps._project(tmp_path / "control", view, imported.lock, print)
    assert not (tmp_path / "control").is_symlink()


def test_a_lock_without_a_tree_is_named_with_what_to_do(imported: Site, tmp_path: Path) -> None:
    bare: dict[str, Any] = {**imported.lock, "project": {}}
    with pytest.raises(Refusal, match=r"lock 1 of site bank-north has no tree .* git checkout: make the lock in one"):
        steps._project(tmp_path / "control", imported.far.link("bank-north"), bare, print)


def test_a_wheel_that_is_not_in_the_view_is_named_with_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDOUBT_WHEELS", raising=False)
    project, wheels = tmp_path / "project", tmp_path / "depot/sites/north/python"
    project.mkdir()
    wheels.mkdir(parents=True)
    shutil.copy(REPOSITORY / "redoubt", project)
    (project / "requirements.txt").write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Refusal, match=f"{project}/redoubt setup failed, see above"):
        steps._environment(project, tmp_path / "depot", "north", print)
    assert f"{wheels} (REDOUBT_WHEELS or {project / steps.WHEELS}) has no wheel of pip" in capfd.readouterr().err
    pip_wheel(wheels)
    with pytest.raises(Refusal, match=f"{project}/redoubt setup failed, see above"):
        steps._environment(project, tmp_path / "depot", "north", print)
    said = capfd.readouterr().err
    assert f"{wheels} has no wheel of tiny==1.0 that this Python" in said
    assert "./redoubt bundle import" in said and "lock_python" in said
    assert "Traceback" not in said
