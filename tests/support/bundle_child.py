"""Builds or imports a bundle in a process of its own that kills itself at its N-th touch of the disk.

Run by `program`, with build|import|media FOLDER N; with N = 0 it ends and prints how many touches there were. With
`media` it imports each folder below FOLDER/media, one after the other, and prints how many there were after each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ansible.module_utils.bundle.building import Wishes, build
from ansible.module_utils.bundle.importing import bring
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer

EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.scandir",
}


def main(action: str, folder: Path, last: int) -> None:
    touches = 0

    def touched(event: str, details: tuple[object, ...]) -> None:
        nonlocal touches
        if event in EVENTS and (event != "open" or str(folder) in str(details[0])):
            touches += 1
            if touches == last:
                os.kill(os.getpid(), signal.SIGKILL)

    def ticked(_: int) -> None:
        touched("os.truncate", ())

    signer = Signer(folder / "no-key")
    sys.addaudithook(touched)
    if action == "build":
        lock = json.loads((folder / "lock.json").read_text())
        wishes = Wishes(piece=20_000, workers=1)
        build(Depot(folder / "near", signer), lock, folder / "medium", wishes, ticked)
    else:
        media = sorted((folder / "media").iterdir()) if action == "media" else [folder / "medium"]
        for medium in media:
            keys = [folder / "operator.pub"]
            bring(medium, Depot(folder / "far", signer), keys, partial=action == "media", workers=1, tick=ticked)
            if action == "media":
                print(touches)
    if action != "media":
        print(touches)


def program(action: str, folder: Path, last: int) -> list[str]:
    """The words that start it; our shared code has its name only after share()."""
    code = "from cli.shared_code import share; share(); from tests.support import bundle_child as child; "
    return [sys.executable, "-c", f"{code}child.main({action!r}, child.Path({str(folder)!r}), {last})"]
