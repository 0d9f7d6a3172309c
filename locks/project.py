"""The project's own tree as one tar: the same bytes from every clone, for a control host behind the gap.

The tree is that of the last commit which changed anything but locks; the lock's folder itself is left out, since its
digest covers this tar. Uncommitted changes of tracked files count: then a tree takes the commit's place.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locks import folder as files  # noqa: F401 - puts our shared code where the import below looks for it

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip

EPOCH = 1767225600  # 2026-01-01T00:00:00Z on every file: a commit's own time says nothing of its bytes
SHORT = 12
EXECUTABLE = "100755"
LINK = "120000"


@dataclass(frozen=True)
class Tree:
    """What of a checkout goes into the tar: `id` is a commit's or a tree's; `version` as people say it."""

    root: Path
    id: str
    version: str
    left_out: tuple[str, ...]

    @property
    def file(self) -> str:
        """Name of the tar."""
        return f"redoubt-{self.id[:SHORT]}.tar"


def tree_of(root: Path, locks: Sequence[Path]) -> Tree | None:
    """Return what a checkout holds now; None where it is none. Raises Refusal."""
    if not (root / ".git").exists():
        return None
    inside = [
        path.resolve().relative_to(root.resolve()) for path in locks if path.resolve().is_relative_to(root.resolve())
    ]
    left_out = tuple(sorted({str(path) for path in inside}))
    excluded = [f":(exclude){path}" for path in left_out]
    dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded))
    commit = _git(root, "log", "-1", "--format=%H", "--", ".", *excluded).decode().strip()
    if not commit:
        raise Refusal(f"{root}: git knows no commit of the project")
    version = _git(root, "describe", "--always", "--tags", commit).decode().strip()
    if dirty:
        return Tree(root, _tree_now(root, left_out), f"{version}-dirty", left_out)
    return Tree(root, commit, version, left_out)


def row(tree: Tree, data: bytes) -> dict[str, Any]:
    """Return the lock's entry for a tree whose tar is `data`."""
    sha256 = hashlib.sha256(data).hexdigest()
    found = {"version": tree.version, "commit": tree.id, "file": tree.file, "sha256": sha256, "size": len(data)}
    return {**found, "left_out": list(tree.left_out)}


def locked_tree(root: Path, locked: Mapping[str, Any]) -> Tree:
    """Return the tree that a lock names, whatever the checkout holds now."""
    left_out = tuple(str(path) for path in locked.get("left_out", ()))
    return Tree(root, str(locked["commit"]), str(locked["version"]), left_out)


def tar(tree: Tree) -> bytes:
    """Return the tar of a tree. Raises Refusal where git does not have it (a commit that was not pulled)."""
    if subprocess.run(
        ["git", "-C", str(tree.root), "cat-file", "-e", tree.id], capture_output=True, check=False
    ).returncode:
        raise Refusal(
            f"{tree.root}: git has no commit or tree {tree.id}, which the lock names; pull it, or make the lock again:"
            " ./redoubt play lock"
        )
    prefix = f"redoubt-{tree.id[:SHORT]}"
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as out:
        for mode, path, data in _entries(tree):
            member = tarfile.TarInfo(f"{prefix}/{path}")
            member.mtime, member.mode = EPOCH, 0o755 if mode == EXECUTABLE else 0o644
            if mode == LINK:
                member.type, member.linkname = tarfile.SYMTYPE, data.decode()
                out.addfile(member)
            else:
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def _entries(tree: Tree) -> list[tuple[str, str, bytes]]:
    listed = _git(tree.root, "ls-tree", "-r", "-z", "--full-tree", tree.id).decode().split("\0")
    rows = []
    for line in filter(None, listed):
        about, _, path = line.partition("\t")
        mode, kind, blob = about.split()
        if kind == "blob" and not any(path == skip or path.startswith(f"{skip}/") for skip in tree.left_out):
            rows.append((mode, path, blob))
    rows.sort(key=lambda item: item[1].encode())
    output = _git(tree.root, "cat-file", "--batch", given="".join(f"{blob}\n" for _, _, blob in rows).encode())
    found, at = [], 0
    for mode, path, _ in rows:
        end = output.index(b"\n", at)
        size = int(output[at:end].split()[2])
        found.append((mode, path, output[end + 1 : end + 1 + size]))
        at = end + 2 + size
    return found


def _tree_now(root: Path, left_out: Sequence[str]) -> str:
    """Write the tracked files as they are into git's store, beside the index; return the tree's name."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        # From the index and not from the commit: a file that was only added belongs to changes that use it.
        known = _git(root, "ls-files", "--stage", "-z")
        _git(root, "update-index", "-z", "--index-info", given=known, environment=index)
        _git(root, "add", "--update", environment=index)
        if left_out:
            _git(root, "rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *left_out, environment=index)
        return _git(root, "write-tree", environment=index).decode().strip()


def _git(root: Path, *words: str, given: bytes | None = None, environment: Mapping[str, str] | None = None) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            input=given,
            capture_output=True,
            env={**os.environ, **(environment or {}), "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except FileNotFoundError:
        raise Refusal("git is not installed here, and the lock lists the project's own files: install git") from None
    if done.returncode:
        raise Refusal(f"git {words[0]} in {root}: {done.stderr.decode(errors='replace').strip()[:300]}")
    return done.stdout
