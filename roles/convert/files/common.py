"""What the programs of conversions share: they run in a container of somebody else's image, with its packages."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

INPUT = Path(os.environ.get("CONVERSION_INPUT", "/input"))
CALIBRATION = Path(os.environ.get("CONVERSION_CALIBRATION", "/calibration"))
OUTPUT = Path(os.environ.get("CONVERSION_OUTPUT", "/output"))
SCRATCH = Path(os.environ.get("CONVERSION_SCRATCH", "/scratch"))


class Unusable(SystemExit):
    """The conversion cannot be done; the text is the last line of the log."""

    def __init__(self, text: str) -> None:
        super().__init__(f"conversion: {text}")


def note_versions(packages: Iterable[str]) -> None:
    """Write down which versions do the work; they go into the manifest."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    (SCRATCH / "tools.json").write_text(json.dumps(found, sort_keys=True), encoding="utf-8")


def only(pattern: str, folder: Path = INPUT) -> Path:
    """Return the one file of a folder that fits. Raises Unusable."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise Unusable(f"the input must have one file {pattern}, and has {names}")
    return found[0]


def copy_beside(names: Iterable[str]) -> None:
    """Copy files of the input that belong to the result too, where they are there and were not written."""
    for name in names:
        source, target = INPUT / name, OUTPUT / name
        if source.is_file() and not target.exists():
            target.write_bytes(source.read_bytes())
