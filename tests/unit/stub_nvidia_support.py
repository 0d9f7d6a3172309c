"""A host in a folder, with the stub tools' files, for the tests of the stubs."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from lab import gpu_description, gpu_tree, recipe_stub_nvidia
from lab.report import QuietReport
from lab.stub_nvidia.tools.host import HARDWARE, STATE, VERSIONS, Host

# On a host it lies beside the tools.
sys.modules.setdefault("gpu_tree", gpu_tree)
DRIVER = "580.126.20"


def fitted(root: Path, description: str, *, loaded: str | None = DRIVER, **versions: str) -> Host:
    """A host of this description with driver packages installed and, unless told otherwise, loaded."""
    (root / "dev").mkdir(parents=True)
    host = Host(root)
    write(host, HARDWARE, json.dumps(gpu_description.load(description)))
    for name, version in {"module": DRIVER, "nvml": DRIVER, "smi": DRIVER, "toolkit": "1.20.0", **versions}.items():
        write(host, f"{VERSIONS}/{name}", f"{version}\n")
    state(host, loaded_driver=loaded)
    return host


def state(host: Host, **changes: Any) -> None:
    """Change the host's state."""
    now = host.state()
    now.update(changes)
    write(host, STATE, json.dumps(now))


def write(host: Host, absolute: str, text: str) -> None:
    """Write a file of the host."""
    path = host.path(absolute)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def built(folder: Path) -> Path:
    """The repositories, built in this folder."""
    recipe_stub_nvidia.build(folder / "repositories", folder / "work", QuietReport(), threading.Event())
    return folder / "repositories"
