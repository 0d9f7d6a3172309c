"""Make the fake hardware appear at its real places: bind mounts over /sys and /proc, and device nodes.

The tree below is written by the lab's `gpu_tree`, which the package brings along; it lies in /run and is made anew at
each boot and change.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import stat
import subprocess
from pathlib import Path

from . import flat
from .host import Host

RUN = "/run/stub-nvidia"
TREE = f"{RUN}/tree"
#: The real /sys, where it is not hidden: links to what is kept lead here.
REAL = f"{RUN}/real-sys"
#: Shown instead of what is there, or together with it.
REPLACED = ("sys/bus/pci/devices", "sys/firmware", "proc/driver")
MERGED = ("sys/module", "sys/bus/pci/drivers")
#: Open to everybody in any container: of the type of /dev/null, which a container engine inside a host may hand on.
#: The real ones have major number 195.
NULL = os.makedev(1, 3)


def refresh(host: Host) -> None:
    """Write tree, flat text and nodes as hardware and state are now, and mount what is not mounted yet."""
    run = host.path(RUN)
    run.mkdir(parents=True, exist_ok=True)
    # Services that start at the same time all do this.
    with (run / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _tree(host)
        target = host.path(flat.FLAT)
        fresh = target.with_name(f".{target.name}.new")
        fresh.write_text(flat.text(host), encoding="utf-8")
        fresh.replace(target)
        nodes(host)


def keep_real(host: Host) -> None:
    """Give the real /sys a second place; call once per boot, before `refresh`."""
    real = host.path(REAL)
    real.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(real):
        _bind(Path("/sys"), real)


def mount(host: Host) -> None:
    """Mount the tree over the real places; call once per boot, after `refresh`."""
    for place in (*REPLACED, *MERGED):
        source, target = host.path(TREE) / place, Path("/") / place
        if source.is_dir() and target.is_dir() and not _mounted(target):
            _bind(source, target)


def nodes(host: Host) -> None:
    """Make the device nodes that a loaded driver has, and remove the others."""
    gpus = host.gpus() if host.driver() else []
    wanted = {f"nvidia{gpu.index}" for gpu in gpus}
    if gpus:
        wanted |= {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}
        wanted |= {f"nvidia-nvswitch{number}" for number in range(len(host.description().get("nvswitches", ())))}
    caps = {f"nvidia-cap{cap}" for cap, _, _ in flat.caps(gpus)}
    _make(host.path("/dev"), wanted)
    _make(host.path("/dev/nvidia-caps"), caps)


def hold(host: Host) -> None:
    """Open a node until this process ends, as the real daemons do."""
    for node in sorted(host.path("/dev").glob("nvidia[0-9]*"))[:1]:
        os.open(node, os.O_RDONLY | os.O_CLOEXEC)


def open_in(host: Host) -> list[str]:
    """Numbers of the processes that have a node open; the kernel unloads no driver under them."""
    found = []
    for link in host.path("/proc").glob("[0-9]*/fd/*"):
        # Processes end and files are closed while we look.
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("/dev/nvidia"):
                found.append(link.parts[-3])
    return sorted(set(found))


def _make(folder: Path, wanted: set[str]) -> None:
    if wanted:
        folder.mkdir(exist_ok=True)
    for old in folder.glob("nvidia*") if folder.is_dir() else ():
        if old.name not in wanted and not old.is_dir():
            old.unlink()
    for name in sorted(wanted):
        if not (folder / name).exists():
            os.mknod(folder / name, stat.S_IFCHR | 0o666, NULL)
            (folder / name).chmod(0o666)


def _tree(host: Host) -> None:
    """Write the tree in place: what is mounted already must show the change."""
    description, state = host.description(), host.state()
    if "nouveau_loaded" in state:
        description["nouveau"] = state["nouveau_loaded"]
    tree = host.path(TREE)
    tree.mkdir(exist_ok=True)
    # The lab's module, installed beside these tools; it writes what /sys and /proc would show.
    importlib.import_module("gpu_tree").write(description, state, tree)
    for name in state["modules"]:
        (tree / "sys/module" / name).mkdir(exist_ok=True)
    for place in MERGED:
        _keep_real(host, place)


def _keep_real(host: Host, place: str) -> None:
    """Beside the fake entries, links to the real ones."""
    inside = place.removeprefix("sys/")
    source = host.path(f"{REAL}/{inside}")
    for entry in source.iterdir() if source.is_dir() else ():
        shown = host.path(TREE) / place / entry.name
        if not shown.exists():
            shown.symlink_to(f"{REAL}/{inside}/{entry.name}")


def _mounted(target: Path) -> bool:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return any(line.split()[4] == str(target) for line in mounts)


def _bind(source: Path, target: Path) -> None:
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
