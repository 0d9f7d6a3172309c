# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Building a view beside the one that is served, of links and a few made texts, and switching to it by one rename."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.blobs import Blobs, sync_folder
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.survey import walk
from ansible.module_utils.artifacts.transfer import hash_file

from .layout import Layout
from .repository import METADATA, by_hash, read_index, release_text, sign, write_bytes
from .signing import Signer


def build(blobs: Blobs, plan: Layout, lock: Mapping[str, Any], target: Path, signer: Signer, earlier: Path) -> None:
    """Make the view of a lock at `target`; `earlier` is the view that is served now, if any.

    Killed at any moment it leaves at most a private folder beside. Raises Refusal, OSError.
    """
    work = target.with_name(f".{target.name}.new")
    _remove(work)
    work.mkdir(parents=True)
    work.parent.chmod(0o755)
    nothing_known = Ledger(work)  # what the blobs' bytes are was proved when they came
    made: set[Path] = set()
    for path, (sha256, _) in sorted(plan.links.items()):
        _make_folder((work / path).parent, made)
        blobs.link(sha256, work / path, nothing_known)
    for path, text in sorted(plan.texts.items()):
        _make_folder((work / path).parent, made)
        write_bytes(work / path, text)
    for base, kind in sorted(plan.repositories.items()):
        _make_folder(work / base, made)
        if kind == "deb":
            platform = base.rpartition("/")[2]
            indexes = [item["path"] for item in lock["platforms"][platform]["indexes"]]
            _write_release(work / base, earlier / base, plan.site, platform, indexes)
        elif not (work / base / METADATA).is_file():
            raise Refusal(
                f"lock of site {plan.site}: {base} lists RPM packages and no {METADATA}; run the playbook lock again, "
                "which makes it with createrepo_c"
            )
        if signer.ready:
            sign(work / base, kind, signer)
    finish(work)
    if target.exists():  # it is damaged; between these two renames nothing is served, then what is right
        old = target.with_name(f".{target.name}.old")
        _remove(old)
        os.rename(target, old)
        os.rename(work, target)
        _remove(old)
    else:
        os.rename(work, target)
    sync_folder(target.parent)


def _write_release(folder: Path, earlier: Path, site: str, platform: str, paths: list[str]) -> None:
    indexes = [read_index(folder, path) for path in paths]
    write_bytes(folder / "Release", release_text(site, platform, time.time(), indexes))
    names = {name: folder / path for index in indexes for name, path in by_hash(index).items()}
    # A host that read the former Release a moment ago asks for the lists which that one names.
    for path in paths:
        if (earlier / path).is_file():
            names = {**dict.fromkeys(by_hash(read_index(earlier, path)), earlier / path), **names}
    for name, source in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, folder / name)
        except OSError:
            shutil.copyfile(source, folder / name)


def finish(work: Path) -> None:
    """Set the folders' modes and bring their names to the disk. Raises OSError."""
    for path, status in walk(work).items():
        if stat.S_ISDIR(status.st_mode):
            (work / path).chmod(0o755)
            sync_folder(work / path)


def _remove(tree: Path) -> None:
    if tree.exists():
        shutil.rmtree(tree)


def _make_folder(folder: Path, made: set[Path]) -> None:
    if folder not in made:
        folder.mkdir(parents=True, exist_ok=True)
        made.add(folder)


def is_whole(blobs: Blobs, plan: Layout, view: Path) -> bool:
    """Tell whether a view that stands there has every link and text that it should. Raises OSError."""
    if not view.is_dir():
        return False
    marks = [f"{base}/{'Release' if kind == 'deb' else METADATA}" for base, kind in plan.repositories.items()]
    return (
        all(is_linked(blobs, view / path, *figures) for path, figures in plan.links.items())
        and all(holds_text(view / path, text) for path, text in plan.texts.items())
        and all((view / mark).is_file() for mark in marks)
    )


def is_linked(blobs: Blobs, path: Path, sha256: str, size: int) -> bool:
    """Tell whether a file of a view is one with its blob, or, where no link was possible, a good copy of it."""
    try:
        found, blob = os.lstat(path), os.lstat(blobs.path(sha256))
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        return False
    return found.st_ino == blob.st_ino or hash_file(path, lambda _: None) == (sha256, size)


def holds_text(path: Path, text: bytes) -> bool:
    """Tell whether a file of a view holds this text. Raises OSError."""
    return path.is_file() and not path.is_symlink() and path.read_bytes() == text


def point(link: Path, target: str) -> bool:
    """Make a symbolic link lead to `target` by one rename; tell whether it did not. Raises OSError."""
    if link.is_symlink() and os.readlink(link) == target:
        return False
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_folder(link.parent)
    return True
