"""Packs what converts for the scenario `convert`: the pinned packages as one tar, to be put over the lab's vLLM image.

python -m tests.support.conversion_packages PINS ARCHIVE
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
import threading
from pathlib import Path

from lab import recipe_vllm
from lab.report import PlainReport

PREFIX = "opt/convert"


def readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Let every user of the container read it: jobs are not root."""
    member.uid = member.gid = 0
    member.mode |= 0o555 if member.isdir() else 0o444
    return member


def main(pins: Path, archive: Path) -> None:
    """Install the packages into a folder and pack it; an archive of the same pins is kept."""
    text = pins.read_text(encoding="utf-8")
    mark = archive.with_suffix(".pins")
    if archive.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == text:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        recipe_vllm.pip_install(pins, Path(folder), PlainReport(), threading.Event(), "the packages that convert")
        fresh = archive.with_suffix(".new")
        with tarfile.open(fresh, "w") as tar:
            tar.add(folder, PREFIX, filter=readable)
        fresh.replace(archive)
    mark.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
