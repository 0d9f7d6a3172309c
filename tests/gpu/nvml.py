"""A second witness of the GPUs: NVIDIA's library itself, asked by ctypes, without nvidia-smi.

Numbers, names and layouts are those of NVIDIA's public nvml.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
OK, NOT_SUPPORTED = 0, 3
NOT_LOADED, MISMATCH = 9, 18
UNCORRECTED, VOLATILE = 1, 0
RECOVERY_ACTION = 230
# Codes in the words that nvidia-smi has for them; a state of 0 is "not supported".
RECOVERIES = ("None", "Reset", "Reboot", "Drain P2P", "Drain and Reset")
STATES = (None, "Not Started", "In Progress", "Completed")
COMPUTE_MODES = ("Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process")
GENERATIONS = {
    (7, 0): "Volta",
    (7, 5): "Turing",
    (8, 0): "Ampere",
    (8, 6): "Ampere",
    (8, 9): "Ada",
    (9, 0): "Hopper",
    (10, 0): "Blackwell",
    (10, 3): "Blackwell",
    (12, 0): "Blackwell",
}


class Pci(ctypes.Structure):
    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        *((name, ctypes.c_uint) for name in ("domain", "bus", "slot", "device", "subsystem")),
        ("address", ctypes.c_char * 32),
    )


class Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


class Fabric(ctypes.Structure):
    _fields_ = (
        ("cluster", ctypes.c_ubyte * 16),
        ("status", ctypes.c_int),
        ("clique", ctypes.c_uint),
        ("state", ctypes.c_ubyte),
    )


class Field(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint),
        ("scope", ctypes.c_uint),
        ("time", ctypes.c_longlong),
        ("took", ctypes.c_longlong),
        ("type", ctypes.c_int),
        ("code", ctypes.c_int),
        ("value", ctypes.c_ulonglong),
    )


class Nvml:
    """The library, started. `code` is what that said: 0 when all is well, 9 without a driver, 18 when mismatched."""

    def __init__(self) -> None:
        """Raises OSError where the library is not installed."""
        self._library = ctypes.CDLL(LIBRARY)
        self.code = int(self._library.nvmlInit_v2())

    def driver(self) -> str:
        """Version of the loaded driver."""
        text = ctypes.create_string_buffer(96)
        self._library.nvmlSystemGetDriverVersion(text, 96)
        return text.value.decode()

    def gpus(self) -> dict[str, dict[str, Any]]:
        """A row for each GPU by its address as sysfs writes it; the keys and words are those of gpu_facts."""
        count = ctypes.c_uint()
        self._library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        rows = {}
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == OK:
                address, row = self._row(handle)
                rows[address] = row
        return rows

    def _row(self, gpu: ctypes.c_void_p) -> tuple[str, dict[str, Any]]:
        pci, memory, fabric = Pci(), Memory(), Fabric()
        self._library.nvmlDeviceGetPciInfo_v3(gpu, ctypes.byref(pci))
        self._library.nvmlDeviceGetMemoryInfo(gpu, ctypes.byref(memory))
        has_fabric = self._ask("nvmlDeviceGetGpuFabricInfo", gpu, ctypes.byref(fabric)) == OK
        state = STATES[fabric.state] if has_fabric else None
        mode, rows = self._numbers("nvmlDeviceGetMigMode", gpu, count=2), self._remapped(gpu)
        ecc = self._numbers("nvmlDeviceGetEccMode", gpu, count=2)
        persistence = self._numbers("nvmlDeviceGetPersistenceMode", gpu)
        compute = self._numbers("nvmlDeviceGetComputeMode", gpu)
        capability = self._numbers("nvmlDeviceGetCudaComputeCapability", gpu, count=2)
        row = {
            "index": (self._numbers("nvmlDeviceGetIndex", gpu) or (None,))[0],
            "uuid": self._text("nvmlDeviceGetUUID", gpu),
            "serial": self._text("nvmlDeviceGetSerial", gpu),
            "name": self._text("nvmlDeviceGetName", gpu),
            "device": f"{pci.device & 0xFFFF:04x}:{pci.device >> 16:04x}",
            "memory_mib": memory.total >> 20,
            "persistence": bool(persistence[0]) if persistence else None,
            "ecc": bool(ecc[0]) if ecc else None,
            "ecc_uncorrected": self._uncorrected(gpu),
            "remap_pending": rows[0] if rows else None,
            "remap_failed": rows[1] if rows else None,
            "recovery_action": self._recovery(gpu),
            "mig": bool(mode[0]) if mode else None,
            "mig_pending": bool(mode[1]) if mode else None,
            "mig_devices": self._mig_devices(gpu) if mode and mode[0] else [],
            "mig_capable": mode is not None,
            "fabric_state": state,
            "fabric_status": ("Success" if fabric.status == OK else "Failure") if state == "Completed" else None,
            "compute_mode": COMPUTE_MODES[compute[0]] if compute else None,
            "generation": GENERATIONS.get((capability[0], capability[1])) if capability else None,
        }
        domain, _, rest = pci.address.decode().lower().partition(":")
        return f"{int(domain, 16):04x}:{rest}", row

    def _ask(self, name: str, *arguments: Any) -> int:
        """The code of a call; one that this library does not have is not supported."""
        function = getattr(self._library, name, None)
        return NOT_SUPPORTED if function is None else int(function(*arguments))

    def _numbers(self, name: str, gpu: ctypes.c_void_p, *, count: int = 1) -> tuple[int, ...] | None:
        values = [ctypes.c_uint() for _ in range(count)]
        code = self._ask(name, gpu, *(ctypes.byref(value) for value in values))
        return tuple(value.value for value in values) if code == OK else None

    def _text(self, name: str, gpu: ctypes.c_void_p) -> str | None:
        text = ctypes.create_string_buffer(96)
        return text.value.decode() if self._ask(name, gpu, text, 96) == OK else None

    def _uncorrected(self, gpu: ctypes.c_void_p) -> int | None:
        found = ctypes.c_ulonglong()
        code = self._ask("nvmlDeviceGetTotalEccErrors", gpu, UNCORRECTED, VOLATILE, ctypes.byref(found))
        return found.value if code == OK else None

    def _remapped(self, gpu: ctypes.c_void_p) -> tuple[bool, bool] | None:
        found = self._numbers("nvmlDeviceGetRemappedRows", gpu, count=4)
        return (bool(found[2]), bool(found[3])) if found else None

    def _recovery(self, gpu: ctypes.c_void_p) -> str | None:
        field = Field(id=RECOVERY_ACTION)
        code = self._ask("nvmlDeviceGetFieldValues", gpu, 1, ctypes.byref(field))
        if code != OK or field.code != OK:
            return None
        number = field.value & 0xFFFFFFFF  # an unsigned int in the union
        return RECOVERIES[number] if number < len(RECOVERIES) else str(number)

    def _mig_devices(self, gpu: ctypes.c_void_p) -> list[dict[str, str | None]]:
        found: list[dict[str, str | None]] = []
        (most,) = self._numbers("nvmlDeviceGetMaxMigDeviceCount", gpu) or (0,)
        for number in range(most):
            handle = ctypes.c_void_p()
            if self._ask("nvmlDeviceGetMigDeviceHandleByIndex", gpu, number, ctypes.byref(handle)) == OK:
                name = self._text("nvmlDeviceGetName", handle) or ""
                found.append({"profile": name.rpartition(" MIG ")[2], "uuid": self._text("nvmlDeviceGetUUID", handle)})
        return found
