"""`stub-nvidia`: what the stub packages, the lab and tests tell the fake hardware.

boot | refresh | load | fault KEY=JSON ... | module-installed VERSION | module-removed VERSION
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

from . import driver, views
from .host import VERSIONS, Host


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Run one verb; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    host = host or Host()
    verb, rest = (words[0], words[1:]) if words else ("", [])
    if verb == "boot":
        if host.real:
            views.keep_real(host)
        problem = driver.boot(host)
        if host.real:
            views.mount(host)
        print(f"stub-nvidia: {problem or 'the driver is loaded'}")
    elif verb == "refresh":
        views.refresh(host)
    elif verb == "load":
        problem = driver.load(host)
        views.refresh(host)
        if problem:
            print(f"stub-nvidia: {problem}", file=sys.stderr)
            return 1
    elif verb == "fault":
        _fault(host, rest)
    elif verb in {"module-installed", "module-removed"} and len(rest) == 1:
        _module(host, rest[0], installed=verb == "module-installed")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def _fault(host: Host, words: list[str]) -> None:
    """Set faults from KEY=JSON; KEY= alone takes one away, no word takes all away."""

    def change(state: dict[str, Any]) -> None:
        if not words:
            state["faults"] = {}
        for word in words:
            key, _, value = word.partition("=")
            state["faults"].pop(key, None)
            if value:
                state["faults"][key] = json.loads(value)

    host.update(change)
    views.refresh(host)


def _module(host: Host, version: str, *, installed: bool) -> None:
    """What DKMS does for the running kernel: put the module where modinfo finds it, or take it away."""
    kernel = os.uname().release
    folder, tree = host.path(f"/lib/modules/{kernel}"), host.path("/var/lib/dkms/nvidia")
    target = folder / "updates/dkms/nvidia.ko"
    shutil.rmtree(tree, ignore_errors=True)
    if installed:
        source = host.path(f"/usr/src/nvidia-{version}/nvidia.ko")
        built = tree / version / kernel / "x86_64/module/nvidia.ko"
        for copy in (target, built):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        (tree / version / "source").symlink_to(f"/usr/src/nvidia-{version}")
        (tree / f"kernel-{kernel}-x86_64").symlink_to(f"{version}/{kernel}/x86_64")
        print(f"stub: pretends to build nvidia/{version} for {kernel}")
    else:
        target.unlink(missing_ok=True)
        host.path(f"{VERSIONS}/module").unlink(missing_ok=True)
    if shutil.which("depmod") and host.real:
        subprocess.run(["depmod", kernel], check=True)
    else:
        (folder / "modules.dep").write_text("updates/dkms/nvidia.ko:\n" if installed else "", encoding="utf-8")
