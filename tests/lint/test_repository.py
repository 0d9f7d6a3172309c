"""The repository: no traces of the machine it was written on, no suppression without its reason."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.lint.roles import REPOSITORY

# A suppression that a linter understands, followed by nothing that says why.
BARE_SUPPRESSION = re.compile(r"#\s*(?:noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[a-z, -]+\])?)\s*$")
# Folders that only the authors' machine has; put together here, so that this file does not hold them itself.
MACHINE_PATHS = tuple("/" + name + "/" for name in ("work", "opt/pypi"))
TEXT = {".cfg", ".conf", ".in", ".j2", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yml", ""}


def tracked() -> list[Path]:
    """Return the files that belong to the repository: those in git and those about to be added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix in TEXT and path != Path(__file__)]


def test_no_path_of_the_authors_machine() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if any(word in line for word in MACHINE_PATHS):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_suppressions_say_why() -> None:
    """The reason stands behind the suppression or in a comment right above it."""
    found = []
    for path in tracked():
        if path.suffix != ".py":
            continue
        before = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if BARE_SUPPRESSION.search(line) and not before.lstrip().startswith("#"):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
            before = line
    assert not found, "write the reason beside it:\n" + "\n".join(found)
