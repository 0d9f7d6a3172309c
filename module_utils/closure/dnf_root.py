# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""DNF in a root of its own: its repositories, keys and lists, never this machine's. The thin edge.

Needs the distribution's packages dnf, rpm and createrepo-c, which Debian has too. Standard library only, Python 3.9+.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.closure import dnf_program
from ansible.module_utils.closure.repos import Source, written
from ansible.module_utils.closure.rpms import LISTS

# The distribution's own Python: DNF's library is its, and Ansible's may be another.
PYTHONS = ("/usr/libexec/platform-python", "/usr/bin/python3")
FOLDERS = ("cachedir", "logdir", "persistdir")  # as DNF's options are called
PROBE = "import dnf"
NEEDED = "install the packages dnf, rpm and createrepo-c"
BATCH = 200  # files for one call of rpmkeys
GOOD = ": digests signatures OK"
SAID = 3000  # characters of a tool's own words in a refusal


class DnfRoot:
    """A root below `folder`. Raises Refusal where this machine lacks the tools, and OSError."""

    def __init__(self, folder: Path, timeout: int) -> None:
        self.folder, self.timeout = folder.resolve(), timeout
        self.keyrings = self.folder / "keys"
        for name in (*FOLDERS, "keys", "lists", "repositories", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def keys(self, keys: Mapping[str, str]) -> None:
        """Write armoured keys by file name. Raises OSError."""
        for name, armoured in keys.items():
            (self.keyrings / Path(name).name).write_text(armoured, encoding="utf-8")

    def ask(self, sources: list[Source], question: Mapping[str, Any]) -> dict[str, Any]:
        """The program's answer about these repositories; see dnf_program for question and answer."""
        (self.folder / "repositories/lock.repo").write_text(written(sources), encoding="utf-8")
        return ask(
            {
                "root": str(self.folder / "root"),
                "system": False,
                "repositories": str(self.folder / "repositories"),
                "folders": {name: str(self.folder / name) for name in FOLDERS},
                "enabled": [],
                "only": None,
                **question,
            },
            self.timeout,
        )

    def unsigned(self, files: Sequence[Path], keys: Sequence[str]) -> list[str]:
        """Names of those files whose signature is not a good one of these keys."""
        database = self.folder / "rpm" / hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12]
        if not database.is_dir():
            database.mkdir(parents=True)
            status, said = run(["rpmkeys", "--dbpath", str(database), "--import", *keys], self.timeout)
            if status:
                raise Refusal(f"RPM cannot read the keys {', '.join(keys)}: {said[-SAID:]}")
        good: set[str] = set()
        command = ["rpmkeys", "--dbpath", str(database), "--define", "_pkgverify_level all", "--checksig"]
        for at in range(0, len(files), BATCH):
            said = run([*command, *map(str, files[at : at + BATCH])], self.timeout)[1]
            good |= {line[: -len(GOOD)] for line in said.splitlines() if line.endswith(GOOD)}
        return [path.name for path in files if str(path) not in good]

    def lists(self, folder: Path, paths: Sequence[str]) -> dict[str, str]:
        """The texts of LISTS and repomd about the packages at these paths below `folder`, made by createrepo_c."""
        wanted, made = self.folder / "wanted", self.folder / "lists"
        wanted.write_text("".join(f"{path}\n" for path in sorted(paths)), encoding="utf-8")
        command = ["createrepo_c", "--quiet", "--no-database", "--simple-md-filenames", "--changelog-limit", "0"]
        command += ["--general-compress-type", "gz", "--error-exit-val", "--pkglist", str(wanted)]
        status, said = run([*command, "--outputdir", str(made), str(folder)], self.timeout)
        if status:
            raise Refusal(f"createrepo_c cannot list the packages in {folder}: {said[-SAID:]}")
        texts = {"repomd": (made / "repodata/repomd.xml").read_text(encoding="utf-8")}
        for kind in LISTS:
            with gzip.open(made / f"repodata/{kind}.xml.gz", "rt", encoding="utf-8") as stream:
                texts[kind] = stream.read()
        return texts


def ask(question: Mapping[str, Any], timeout: int) -> dict[str, Any]:
    """What dnf_program answers. Raises Refusal where DNF is not on this machine, or cannot answer at all."""
    python = next((one for one in PYTHONS if run([one, "-I", "-c", PROBE], timeout)[0] == 0), None)
    if python is None:
        raise Refusal(f"DNF's library is not on this machine: {NEEDED}, or run this on a host that has them")
    source = dnf_program.__spec__.loader.get_source(dnf_program.__name__)
    status, said = run([python, "-I", "-c", source], timeout, json.dumps(question))
    answer: dict[str, Any] = {}
    lines = said.splitlines()
    try:
        answer = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    except (ValueError, StopIteration):
        raise Refusal(f"DNF's library ended with {status}: {said[-SAID:] or 'it said nothing'}") from None
    more = " ".join(line.strip() for line in lines if not line.startswith("{"))
    if answer["problem"] and more:  # which addresses were tried, it only says aside
        answer["problem"] += f" ({more[:SAID]})"
    return answer


def run(command: Sequence[str], timeout: int, given: Optional[str] = None) -> tuple[int, str]:
    """(exit status, both outputs) of a command; 127 where it is not there. Raises Refusal."""
    try:
        done = subprocess.run(
            command,
            input=(given or "").encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        if command[0] in PYTHONS:
            return 127, ""
        raise Refusal(f"{command[0]} is not on this machine: {NEEDED}, or run this on a host that has them") from None
    except subprocess.TimeoutExpired:
        raise Refusal(f"'{' '.join(command[:3])[:80]} …' did not end within {timeout} s") from None
    return done.returncode, done.stdout.decode(errors="replace").strip()
