# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a lock's packages, brought by APT's own fetcher, which knows this machine's proxies and logins.

Standard library only, Python 3.9+.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal, plural
from ansible.module_utils.artifacts.manifest import path_problem

FETCHER = "/usr/lib/apt/apt-helper"
BATCH = 50  # files for one call of the fetcher: a few connections, used again
PART = ".part"
BUFFER = 1 << 20


def sha256_of(path: Path) -> str:
    """The sum of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for data in iter(lambda: file.read(BUFFER), b""):
            digest.update(data)
    return digest.hexdigest()


def proved(path: Path, row: Mapping[str, Any]) -> bool:
    """Whether the file is there with its size and sum."""
    return path.is_file() and path.stat().st_size == row["size"] and sha256_of(path) == row["sha256"]


def fetch(rows: Sequence[Mapping[str, Any]], folder: Path, timeout: int, check: bool) -> list[Mapping[str, Any]]:
    """Bring the files {sha256, size, path, origin} to `folder`/path and return those that were not there.

    Raises Refusal that names every file which could not be had, or is not the one that is locked; and OSError.
    """
    odd = [f"{row['path']} {problem}" for row in rows for problem in [path_problem(row["path"])] if problem]
    if odd:
        raise Refusal(f"paths that cannot be used: {'; '.join(odd)}")
    wanted = [row for row in rows if not proved(folder / row["path"], row)]
    if check or not wanted:
        return wanted
    problems: list[str] = []
    for at in range(0, len(wanted), BATCH):
        problems += _batch(wanted[at : at + BATCH], folder, timeout)
    if problems:
        raise Refusal(
            [
                f"{plural(len(problems), 'package file')} of the lock cannot be had; the others are in {folder}:",
                *problems,
                "A repository may have dropped this version: lock again ('./redoubt play lock'), or bring it there.",
            ]
        )
    return wanted


def _batch(rows: Sequence[Mapping[str, Any]], folder: Path, timeout: int) -> list[str]:
    """Fetch some files; returns what is wrong with each that did not come."""
    words: list[str] = []
    for row in rows:
        part = folder / (row["path"] + PART)
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.is_symlink() or (part.exists() and part.stat().st_size >= row["size"]):
            part.unlink()  # nothing to continue
        words += [row["origin"], str(part), f"SHA256:{row['sha256']}"]
    said = _run([FETCHER, "download-file", *words], timeout)
    problems = []
    for row in rows:
        path = folder / row["path"]
        part = path.with_name(path.name + PART)
        part.with_name(part.name + ".FAILED").unlink(missing_ok=True)
        if part.is_symlink():  # APT links to files of this machine instead of copying them
            real = Path(os.path.realpath(part))
            part.unlink()
            if real.is_file():
                shutil.copyfile(real, part)
        if proved(part, row):
            part.replace(path)
        else:
            problems.append(f"{row['path']} from {row['origin']}: {_reason(said, row['origin'])}")
    return problems


def _run(command: Sequence[str], timeout: int) -> str:
    """What the fetcher says. Raises Refusal where it is not there or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise Refusal(
            f"{FETCHER} is not on this machine: run this on Debian or Ubuntu, or install the package apt"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refusal(f"the files did not come within {timeout} s; what came stays, so run this again") from None
    return done.stdout.decode(errors="replace")


def _reason(said: str, origin: str) -> str:
    """APT's reason for one file: the line that names it and the one behind."""
    lines = said.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("Err:", "E:")) and origin in line:
            return " ".join(part.strip() for part in lines[number : number + 2])[:400]
    return "its bytes are not those that are locked"
