"""The launcher: what it makes the environment from, when it makes it anew, and what it refuses."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "redoubt"


@pytest.fixture(scope="module")
def launcher() -> ModuleType:
    spec = spec_from_loader("redoubt_launcher", SourceFileLoader("redoubt_launcher", str(LAUNCHER)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = write_bytecode
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that needs no package at all: making its environment takes seconds and no network."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text("# nothing\n")
    return tmp_path


def test_the_digest_follows_every_edit(launcher: ModuleType, checkout: Path) -> None:
    base = launcher.digest(launcher.requirement_files(checkout, False))
    dev = launcher.digest(launcher.requirement_files(checkout, True))
    assert base != dev
    (checkout / "requirements-dev.txt").write_text("# something\n")
    assert launcher.digest(launcher.requirement_files(checkout, False)) == base
    assert launcher.digest(launcher.requirement_files(checkout, True)) != dev


def test_the_environment_is_made_once_and_again_when_it_must(launcher: ModuleType, checkout: Path) -> None:
    venv, base = checkout / ".venv", checkout / "requirements.txt"
    base.write_text("./no-such-wheel-1-py3-none-any.whl --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(launcher.LauncherError, match=r"failed \(exit 1\)[\s\S]*no-such-wheel"):
        launcher.ensure(checkout, False)
    assert not launcher.is_current(checkout, venv, False)

    base.write_text("# mended\n")
    planted = venv / "planted"
    planted.write_text("")
    assert launcher.ensure(checkout, False) > 0
    assert not planted.exists(), "after an installation that did not end everything is made anew"
    assert launcher.ensure(checkout, False) == 0
    assert not launcher.is_current(checkout, venv, True)

    planted.write_text("")
    assert launcher.ensure(checkout, True) > 0
    assert launcher.is_current(checkout, venv, False)
    base.write_text("# changed\n")
    assert not launcher.is_current(checkout, venv, False)
    assert launcher.ensure(checkout, False) > 0
    assert launcher.is_current(checkout, venv, True), "what the tests need is kept up to date, too"
    assert planted.exists(), "new requirements are installed into the old environment"

    (venv / launcher.BUILDING).write_text("")
    assert not launcher.is_current(checkout, venv, False)


TWO = """
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
module = SourceFileLoader("launcher", {launcher!r}).load_module()
print(module.ensure(Path({root!r}), False))
"""


def test_two_calls_at_once_make_one_environment_also_in_a_moved_checkout(launcher: ModuleType, checkout: Path) -> None:
    planted = checkout / ".venv" / "planted"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (checkout / ".venv" / launcher.MARKER).write_text('{"path": "/where/it/was/.venv"}')
    planted.write_text("")
    script = TWO.format(launcher=str(LAUNCHER), root=str(checkout))
    calls = [
        subprocess.Popen(
            [sys.executable, "-B", "-c", script], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [call.communicate(timeout=120)[1] for call in calls]
    assert [call.returncode for call in calls] == [0, 0], said
    assert sum("Making the Python environment: done" in text for text in said) == 1
    assert launcher.is_current(checkout, checkout / ".venv", False)
    assert not planted.exists(), "an environment cannot be moved; it is made anew"


def test_the_oldest_and_newest_pythons(launcher: ModuleType) -> None:
    assert launcher.choose_python((3, 11), lambda _: None) == sys.executable
    assert launcher.choose_python((3, 14), lambda _: None) == sys.executable
    assert launcher.choose_python((3, 14), lambda name: sys.executable) == sys.executable
    with pytest.raises(launcher.LauncherError, match=r"needs Python 3.11 or newer; this is 3.9 [\s\S]*apt-get install"):
        launcher.choose_python((3, 9), lambda _: None)


def test_an_interpreter_that_does_not_run_is_passed_over(launcher: ModuleType, tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    found = {"python3.13": str(broken), "python3.11": sys.executable}
    assert launcher.choose_python((3, 9), found.get) == sys.executable


def test_an_old_python_can_read_the_refusal() -> None:
    ast.parse(LAUNCHER.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_the_launcher_needs_the_standard_library_only() -> None:
    tree = ast.parse(LAUNCHER.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # cli.bundle needs no more itself (test_cli_bundle.py runs it without anything else).
    assert {name.split(".")[0] for name in names - {"cli.bundle"}} <= set(sys.stdlib_module_names)


def test_a_missing_ensurepip_is_named(launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crippled = tmp_path / "python3"
    crippled.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    crippled.chmod(0o755)
    monkeypatch.setattr(launcher.os, "geteuid", lambda: 1000)
    with pytest.raises(launcher.LauncherError, match=r"Install the package python3\.\d+-venv"):
        launcher.provide_ensurepip(str(crippled), tmp_path / "log")


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel of these files, as pip wants it."""
    info = f"{name}-{version}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    every = {**files, **{path: text.encode() for path, text in texts.items()}}
    every[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*every, f"{info}/RECORD"]).encode()
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in every.items():
            archive.writestr(path, content)
    return made


def pip_wheel(folder: Path) -> Path:
    """The wheel of the pip that runs these tests."""
    found = importlib.metadata.distribution("pip")
    files = {str(path): path.locate() for path in found.files or () if str(path).startswith("pip/")}
    contents = {name: Path(str(path)).read_bytes() for name, path in files.items() if not name.endswith(".pyc")}
    return wheel(folder, "pip", found.version, contents)


def test_wheels_alone_make_the_environment(
    launcher: ModuleType, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "python"
    wheels.mkdir()
    pip_wheel(wheels)
    tiny = wheel(wheels, "tiny", "1.0", {"tiny.py": b"ANSWER = 42\n"})
    pinned = f"tiny==1.0 --hash=sha256:{hashlib.sha256(tiny.read_bytes()).hexdigest()}\n"
    (checkout / "requirements.txt").write_text(pinned)
    (checkout / launcher.WHEELS).write_text(f"{wheels}\n")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")  # nobody listens: who asks an index fails
    monkeypatch.setattr(launcher, "provide_ensurepip", lambda *_: pytest.fail("ensurepip is not there on Debian"))
    launcher.ensure(checkout, False)
    assert launcher.is_current(checkout, checkout / ".venv", False)
    done = subprocess.run(
        [checkout / ".venv/bin/python", "-c", "import tiny; print(tiny.ANSWER)"], capture_output=True, check=True
    )
    assert done.stdout == b"42\n"

    tiny.write_bytes(tiny.read_bytes() + b"x")
    (checkout / "requirements.txt").write_text(pinned + "# anew\n")
    shutil.rmtree(checkout / ".venv")
    with pytest.raises(launcher.LauncherError, match="HASH"):
        launcher.ensure(checkout, False)


def test_a_folder_without_pip_is_refused(launcher: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOUBT_WHEELS", str(checkout))
    with pytest.raises(launcher.LauncherError, match="has no wheel of pip"):
        launcher.ensure(checkout, False)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["play", "--help"], ["test", "-h"]])
def test_help_works_before_there_is_an_environment(arguments: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "cli").mkdir(parents=True)
    for path in (LAUNCHER, *(ROOT / "cli").glob("*.py")):
        target = copy / path.relative_to(ROOT)
        target.write_bytes(path.read_bytes())
        target.chmod(path.stat().st_mode)
    # -S: no site-packages, so that nothing but the standard library can be imported.
    bare = [sys.executable, "-S", str(copy / "redoubt"), *arguments]
    done = subprocess.run(bare, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: redoubt" in done.stdout
    assert "exit codes:" in done.stdout
    assert not (copy / ".venv").exists()


def test_the_pins_of_the_tests_include_those_of_the_control_host() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([^\s#]+==\S+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))

    base = pins("requirements.txt")
    assert len(base) > 20
    assert base <= pins("requirements-dev.txt")


def test_a_stopped_installation_stops_the_installer(launcher: ModuleType, tmp_path: Path) -> None:
    script = f"""
from importlib.machinery import SourceFileLoader
from pathlib import Path
import signal
module = SourceFileLoader("launcher", {str(LAUNCHER)!r}).load_module()
signal.signal(signal.SIGTERM, module.stopped)
module.run_logged("Sleeping", ["sh", "-c", "echo $$; exec sleep 60"], Path({str(tmp_path / "log")!r}))
"""
    call = subprocess.Popen([sys.executable, "-B", "-c", script], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "log"
    for _ in range(100):
        if log.exists() and log.read_text().strip():
            break
        time.sleep(0.1)
    call.terminate()
    said = call.communicate(timeout=30)[1]
    assert call.returncode == 143
    assert "Sleeping: stopped" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
