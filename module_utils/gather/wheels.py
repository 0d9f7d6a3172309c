# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Wheels for the control host, brought by pip, which knows this machine's index; each is proved by its SHA-256."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.transfer import hash_file

PINS = "pins.txt"
SAID = 600  # characters of what pip says


@dataclass(frozen=True)
class Pip:
    """How pip is asked: the interpreter that has it ("" = this one), the index ("" = what pip is set up with), seconds.

    index: https://SERVER/simple, or file:///FOLDER with wheels.
    """

    python: str = ""
    index: str = ""
    timeout: int = 1800

    def words(self) -> list[str]:
        """Return pip's options that say where wheels are."""
        if self.index.startswith("file://"):
            return ["--no-index", "--find-links", self.index[len("file://") :]]
        return ["--index-url", self.index] if self.index else []


def pip(how: Pip, target: Mapping[str, str], folder: Path, pins: str, hashed: bool = True) -> str:
    """Download wheels for a target {python: "3.13", platform: manylinux_2_28_x86_64}; return what pip says if it fails.

    pins: lines of a requirements file, each with its hashes unless not `hashed`. Raises Refusal where pip does not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PINS).write_text(pins, encoding="utf-8")
    command = [how.python or sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes"] if hashed else []
    command += ["--disable-pip-version-check", "--no-input", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", target["python"], "--implementation", "cp"]
    for platform in platforms(target["platform"]):
        command += ["--platform", platform]
    try:
        done = subprocess.run(
            [*command, *how.words(), "-r", str(folder / PINS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=how.timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Refusal(f"{command[0]} is not here; name a Python that has pip") from None
    except subprocess.TimeoutExpired:
        raise Refusal(f"the wheels did not come within {how.timeout} s; run this again") from None
    finally:
        (folder / PINS).unlink(missing_ok=True)
    return "" if done.returncode == 0 else done.stdout.decode(errors="replace").strip()[-SAID:]


def label(target: Mapping[str, str]) -> str:
    """Return a target in one word: 3.13-manylinux_2_28_x86_64."""
    return f"{target['python']}-{target['platform']}"


def platforms(newest: str) -> list[str]:
    """Return the tags of all wheels that run where the newest does: manylinux_2_28_x86_64 takes older ones, too."""
    if not newest.startswith("manylinux_2_"):
        return [newest]
    version, _, machine = newest[len("manylinux_2_") :].partition("_")
    found = [f"manylinux_2_{minor}_{machine}" for minor in range(int(version), 4, -1)]
    return [*found, f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]


def download(
    rows: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, str]], folder: Path, how: Pip
) -> list[str]:
    """Bring locked files {name, version, file, sha256}; return what is wrong. Only proved ones stay. Raises Refusal."""
    said = ""
    for target in targets:
        wanted = [row for row in rows if not proved(folder / row["file"], row["sha256"])]
        mine = [row for row in wanted if label(target) in row.get("targets", [label(target)])]
        if mine:
            pins = "".join(f"{row['name']}=={row['version']} --hash=sha256:{row['sha256']}\n" for row in mine)
            said = pip(how, target, folder, pins) or said
    problems = []
    for row in rows:
        path = folder / row["file"]
        if not proved(path, row["sha256"]):
            path.unlink(missing_ok=True)
            problems.append(f"python: {row['file']} cannot be had: {said or 'pip brought another file for it'}")
    return problems


def proved(path: Path, sha256: str) -> bool:
    """Whether the file is there with these bytes. Raises OSError."""
    return path.is_file() and hash_file(path, lambda _: None)[0] == sha256


def requirements_digest(path: Path) -> str:
    """Return the SHA-256 of a requirements file. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
