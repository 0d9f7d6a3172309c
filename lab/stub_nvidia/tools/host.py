"""A host's fake hardware and the state of its fake driver."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HARDWARE = "/etc/stub-nvidia/hardware.json"
STATE = "/var/lib/stub-nvidia/state.json"
VERSIONS = "/usr/lib/stub-nvidia/versions"
EMPTY: dict[str, Any] = {"loaded_driver": None, "mig": {}, "persistence": False, "faults": {}, "modules": []}


@dataclass(frozen=True)
class Gpu:
    """One GPU that the driver sees. ``index`` counts in PCI order and is also the minor number of its node."""

    index: int
    address: str
    device: str
    product: str
    uuid: str
    serial: str
    memory_mib: int
    ecc: bool
    mig_capable: bool
    mig_enabled: bool
    mig_devices: tuple[dict[str, Any], ...]
    lost: bool
    ecc_uncorrected: int
    row_remap_failure: bool
    fabric_state: str
    fabric_status: str

    @property
    def bus_id(self) -> str:
        """The PCI address as NVIDIA writes it: 00000000:1B:00.0."""
        return f"0000{self.address}".upper()


class Host:
    """The files of one host, below ``root``."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(os.environ.get("STUB_NVIDIA_ROOT", "/"))

    @property
    def real(self) -> bool:
        """Whether this is the machine itself, not a folder of a test."""
        return self.root == Path("/")

    @property
    def writable(self) -> bool:
        """Whether this user may change the state."""
        return os.access(self.path(STATE).parent, os.W_OK)

    def path(self, absolute: str) -> Path:
        """Where an absolute path of the host is."""
        return self.root / absolute.lstrip("/")

    def description(self) -> dict[str, Any]:
        """The hardware, as the lab's descriptions have it; none where no description was installed."""
        try:
            return dict(json.loads(self.path(HARDWARE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {"name": "none", "gpus": [], "nvswitches": [], "infiniband": [], "nouveau": False, "fabric": None}

    def state(self) -> dict[str, Any]:
        """What changes while the host lives."""
        try:
            return {**EMPTY, **json.loads(self.path(STATE).read_text(encoding="utf-8"))}
        except FileNotFoundError:
            return dict(EMPTY)

    def update(self, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Change the state in place under a lock; returns it as it is now."""
        with self._lock():
            state = self.state()
            change(state)
            target = self.path(STATE)
            fresh = target.with_name(f".{target.name}.new")
            fresh.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
            fresh.replace(target)
        return state

    def component(self, name: str) -> str | None:
        """The version of an installed part: module, nvml, smi, fabricmanager, toolkit, nvlsm, dcgm."""
        try:
            return self.path(f"{VERSIONS}/{name}").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def driver(self) -> str | None:
        """The version of the module that is loaded, or that a fault makes it look like."""
        state = self.state()
        loaded = state["loaded_driver"]
        return None if loaded is None else str(state["faults"].get("loaded_driver") or loaded)

    def gpus(self) -> list[Gpu]:
        """The GPUs that the driver sees, in PCI order; a lost one is still there, a missing one is not."""
        description, state = self.description(), self.state()
        faults = state["faults"]
        fabric_state, fabric_status = _fabric(description, state)
        found: list[Gpu] = []
        for plain in description["gpus"]:
            if plain["address"] in faults.get("missing_gpus", ()):
                continue
            mig = state["mig"].get(plain["uuid"], {})
            enabled = mig.get("mode", plain.get("mig_mode", "disabled")) == "enabled"
            found.append(
                Gpu(
                    index=len(found),
                    address=plain["address"],
                    device=plain["device"],
                    product=plain["product"],
                    uuid=plain["uuid"],
                    serial=str(plain["serial"]),
                    memory_mib=plain["memory_mib"],
                    ecc=plain.get("ecc", True),
                    mig_capable=plain.get("mig_capable", False),
                    mig_enabled=enabled,
                    mig_devices=tuple(mig.get("devices", plain.get("mig_devices", ()))) if enabled else (),
                    lost=plain["address"] in faults.get("lost_gpus", ()),
                    ecc_uncorrected=faults.get("ecc_uncorrected", {}).get(plain["address"], 0),
                    row_remap_failure=plain["address"] in faults.get("row_remap_failure", ()),
                    fabric_state=fabric_state,
                    fabric_status=fabric_status,
                )
            )
        return found

    @contextmanager
    def _lock(self) -> Iterator[None]:
        folder = self.path(STATE).parent
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _fabric(description: dict[str, Any], state: dict[str, Any]) -> tuple[str, str]:
    """State and status of the fabric: completed only while a fabric manager has done its work since the last boot."""
    wanted = description.get("fabric")
    if wanted is None:
        return "[N/A]", "[N/A]"
    if state["faults"].get("fabric"):
        return str(state["faults"]["fabric"]), "[N/A]"
    if not state.get("fabric_manager"):
        return "In Progress", "[N/A]"
    return str(wanted["state"]), str(wanted["status"])
