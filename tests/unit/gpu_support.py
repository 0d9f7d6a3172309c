"""A GPU host in a folder: the tree of a hardware description and stub commands beside it."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

from lab import gpu_description, gpu_tree
from module_utils.gpu.facts import gather
from module_utils.gpu.host import Host
from module_utils.gpu.smi import FIELDS

VERSION = "580.126.20"
OTHER = "580.95.05"
STUB = Path(__file__).parent / "stubs" / "stub_nvidia_smi.py"
SYSTEMD = {"fabricmanager": "active", "persistenced": "active", "cdi-refresh": "inactive", "imex": None}
CDI = """---
cdiVersion: 0.7.0
containerEdits:
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}
  - containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}
    hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""


def cell(answer: bool | None) -> str:
    return "[N/A]" if answer is None else "Enabled" if answer else "Disabled"


def query_row(gpu: dict[str, Any], index: int, description: dict[str, Any]) -> dict[str, str]:
    """What nvidia-smi says of a healthy GPU."""
    fabric = description["fabric"]
    mig = gpu["mig_mode"] == "enabled" if gpu["mig_capable"] else None
    return {
        "index": str(index),
        "uuid": gpu["uuid"],
        "serial": gpu["serial"],
        "name": gpu["product"],
        "pci.bus_id": "0000" + gpu["address"].upper(),
        "driver_version": VERSION,
        "memory.total": str(gpu["memory_mib"]),
        "persistence_mode": "Enabled",
        "ecc.mode.current": cell(gpu["ecc"]),
        "ecc.errors.uncorrected.volatile.total": "0",
        "remapped_rows.pending": "No",
        "remapped_rows.failure": "No",
        "gpu_recovery_action": "None",
        "mig.mode.current": cell(mig),
        "mig.mode.pending": cell(mig),
        "fabric.state": fabric["state"] if fabric else "[N/A]",
        "fabric.status": fabric["status"] if fabric else "[N/A]",
        "compute_mode": "Default",
    }


def listing(description: dict[str, Any]) -> str:
    """What `nvidia-smi -L` says."""
    lines = []
    for index, gpu in enumerate(description["gpus"]):
        lines.append(f"GPU {index}: {gpu['product']} (UUID: {gpu['uuid']})\n")
        for number, mig in enumerate(gpu["mig_devices"]):
            lines.append(f"  MIG {mig['profile']:<15} Device {number:>2}: (UUID: {mig['uuid']})\n")
    return "".join(lines)


class GpuHost:
    """A host under `folder`/root, its stub commands in `folder`/stub-bin, and what they say."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = folder / "root"
        self.bin = folder / "stub-bin"
        self.bin.mkdir()
        self.description = copy.deepcopy(gpu_description.load(name))
        self.seconds = 60.0
        self.smi: dict[str, Any] = {}
        self.tree(None)

    def tree(self, loaded: str | None) -> None:
        """Write the tree, with this version of the module in the kernel."""
        gpu_tree.write(self.description, {"loaded_driver": loaded}, self.root)

    def with_driver(self) -> GpuHost:
        """Install and load everything, in the same version."""
        self.tree(VERSION)
        self.smi = {
            "help": list(FIELDS),
            "rows": [query_row(gpu, index, self.description) for index, gpu in enumerate(self.description["gpus"])],
            "list": listing(self.description),
        }
        self.command(
            "nvidia-smi", f'exec "{sys.executable}" "{STUB}" "{self.bin}" "$@"', "answers from nvidia-smi.json"
        )
        self.says("modinfo", f"filename: /x/nvidia.ko\nversion:        {VERSION}\nlicense:        Dual MIT/GPL")
        self.says("nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.20.0\ncommit: 0000")
        self.says("nv-fabricmanager", f"Fabric Manager version is : {VERSION}")
        self.says("systemctl", systemd(SYSTEMD))
        self.file(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}", "")
        self.file("run/cdi/nvidia.yaml", CDI.format(version=VERSION))
        return self

    def file(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def command(self, name: str, line: str, says: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n# A stub of {name}: {says}.\n{line}\n")
        (self.bin / name).chmod(0o755)

    def says(self, name: str, text: str, code: int = 0) -> None:
        """Make the stub of a command that says one text."""
        (self.bin / f"{name}.txt").write_text(text + "\n")
        self.command(name, f'/bin/cat "{self.bin / name}.txt"; exit {code}', "one text")

    def fails(self, text: str, code: int) -> None:
        """Let nvidia-smi fail, whatever it is asked."""
        self.smi = {"before": text + "\n", "help_code": code}

    def calls(self) -> list[str]:
        """What nvidia-smi was asked."""
        return (self.bin / "calls").read_text().splitlines()

    def facts(self) -> dict[str, Any]:
        (self.bin / "nvidia-smi.json").write_text(json.dumps(self.smi))
        return gather(Host(str(self.root), str(self.bin), self.seconds))


def systemd(states: dict[str, str | None]) -> str:
    """What `systemctl show` says of units in these states; None: not installed."""
    blocks = []
    for name, state in states.items():
        load, enabled = ("loaded", "enabled") if state else ("not-found", "")
        blocks.append(
            f"Id=nvidia-{name}.service\nLoadState={load}\nActiveState={state or 'inactive'}\nUnitFileState={enabled}"
        )
    return "\n\n".join(blocks)
