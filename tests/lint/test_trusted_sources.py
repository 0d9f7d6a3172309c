"""No package source anywhere in the repository is trusted without a signature, but for the stubs named here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.lint.roles import REPOSITORY

TRUSTED = re.compile(r"trusted\s*[=:]\s*(?:yes|true)\b", re.IGNORECASE)
ALLOWED = {
    "molecule/cuda_toolkit/prepare.yml": "a stub repository in a folder of the test's own container",
    "molecule/nvidia_driver_real/tests/test_nvidia_driver_real.py": "a newer package that the test itself has made",
    "tests/unit/test_stub_nvidia_packages.py": "the stub packages, to be resolved by APT in a folder of the test",
    "tests/unit/test_package_closure.py": "shows that a closure from such a source is refused",
    "tests/lint/test_egress.py": "shows that the check of lines finds it",
    "tests/lint/test_egress_lints.py": "shows that the check of lines finds it",
    "tests/lint/test_trusted_sources.py": "shows that this check finds it",
}


def trusting(root: Path) -> set[str]:
    """The files of a repository, those about to be added too, that have such a source."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    paths = [root / name for name in done.stdout.split("\0") if name]
    found = (path for path in paths if path.is_file() and TRUSTED.search(path.read_text("utf-8", errors="replace")))
    return {str(path.relative_to(root)) for path in found}


def test_only_stubs_are_trusted_unsigned() -> None:
    assert trusting(REPOSITORY) == set(ALLOWED)  # an entry without its line goes, too


@pytest.mark.parametrize("line", ["deb [trusted=yes] x", "Trusted: yes", "deb [arch=amd64 TRUSTED = true] x"])
def test_such_a_source_is_found_in_any_file(tmp_path: Path, line: str) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name, text in (("x.sources", f"a\n{line}\n"), ("good.sources", "Trusted: no\n")):
        (tmp_path / "anywhere").mkdir(exist_ok=True)
        (tmp_path / "anywhere" / name).write_text(text)
    assert trusting(tmp_path) == {"anywhere/x.sources"}
