"""The pinned wheels for another Python than the running one: pip alone reads a requirement's markers for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement


def pins_for(python: str, requirements: str) -> str:
    """The lines of a requirements file with hashes that apply to a Python such as 3.13, without their markers."""
    chosen = []
    for line in requirements.replace("\\\n", " ").splitlines():
        words, *hashes = line.partition("#")[0].split("--hash=")
        if not words.strip():
            continue
        requirement = Requirement(words.strip())
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            chosen.append(" ".join([str(requirement), *(f"--hash={value.strip()}" for value in hashes)]))
    return "".join(f"{line}\n" for line in chosen)


def download(python: str, requirements: Path, folder: Path) -> None:
    """Put the wheels into `folder`, each proved by its hash. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    pins = folder / "pins.txt"
    pins.write_text(pins_for(python, requirements.read_text()))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--python-version", python, "--dest", str(folder), "-r", str(pins)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
