# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a depot can do without: blobs that no lock asks for, views that no site has, pieces of files on their way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.blobs import Blobs
from ansible.module_utils.artifacts.ledger import Ledger

from .layout import Layout, layout


def collect(root: Path, blobs: Blobs, kept: Iterable[Mapping[str, Any]], dry: bool = False) -> int:
    """Remove what no lock of `kept` refers to; return the bytes that the disk gets back. Raises Refusal, OSError."""
    plans = [layout(lock) for lock in kept]
    wanted = {sha256 for plan in plans for sha256, _ in plan.links.values()}
    for view in [] if dry else _old_views(root, plans):
        shutil.rmtree(view)
    freed = 0
    for item in sorted(blobs.every(), key=lambda item: item.name):
        if item.name not in wanted:
            size = item.stat(follow_symlinks=False).st_size
            freed += size if dry else blobs.remove(Path(item.path), Ledger(root))
    for path in sorted(blobs.partial.glob("*")):
        if path.name.partition(".")[0] not in wanted:
            freed += os.lstat(path).st_size
            if not dry:
                path.unlink()
    return freed


def _old_views(root: Path, plans: Iterable[Layout]) -> Iterator[Path]:
    kept = {(plan.site, plan.short) for plan in plans}
    for site in sorted((root / "views").glob("*")):
        for view in sorted(site.glob("*")):
            if (site.name, view.name) not in kept:
                yield view
