"""promtool and Prometheus for tests on this machine: the installed ones, or those in the lab's Prometheus image."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path


def find(folder: Path, name: str = "promtool") -> str | None:
    """A program that can be run here, taken out of the lab's image into `folder` where none is installed; or None."""
    installed = shutil.which(name)
    if installed:
        return installed
    root = Path(__file__).parents[2]
    cache = Path(os.environ.get("REDOUBT_CACHE", root / ".cache")) / "lab/media/images"
    for archive in sorted(cache.glob("prometheus-*.tar")):
        with tarfile.open(archive) as image:
            for member in image.getmembers():
                layer = image.extractfile(member) if member.name.endswith("tar") else None
                if layer and (program := _program(layer.read(), name)):
                    target = folder / name
                    target.write_bytes(program)
                    target.chmod(0o755)
                    return str(target)
    return None


def _program(layer: bytes, name: str) -> bytes | None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        for member in files.getmembers():
            if member.isfile() and member.name.endswith(f"bin/{name}"):
                content = files.extractfile(member)
                return content.read() if content else None
    return None
