"""nvidia-smi: which questions it knows, its answers, and its failures."""

from __future__ import annotations

import csv
import re
from typing import Any, NamedTuple, Optional

from .host import Answer, Host

COMMAND = "nvidia-smi"
ADDRESS, PENDING, FAILURE = "pci.bus_id", "remapped_rows.pending", "remapped_rows.failure"
# In older drivers the remapped rows are a query of their own.
OWN_QUERY = (PENDING, FAILURE)
FIELDS = (
    "index",
    "uuid",
    "serial",
    "name",
    ADDRESS,
    "driver_version",
    "memory.total",
    "persistence_mode",
    "ecc.mode.current",
    "ecc.errors.uncorrected.volatile.total",
    *OWN_QUERY,
    "gpu_recovery_action",
    "mig.mode.current",
    "mig.mode.pending",
    "fabric.state",
    "fabric.status",
    "compute_mode",
)
FORMAT = "--format=csv,noheader,nounits"
# Kinds of failure, by what nvidia-smi says; after them by its exit code, which is NVML's.
MISMATCH, NO_DEVICES, NO_DRIVER, LOST = "version_mismatch", "no_devices", "no_driver", "gpu_lost"
TIMEOUT, FAILED = "timeout", "failed"
TEXTS = (
    (re.compile(r"driver/library version mismatch", re.IGNORECASE), MISMATCH),
    (re.compile(r"couldn't communicate with the NVIDIA driver", re.IGNORECASE), NO_DRIVER),
    (re.compile(r"GPU is lost|fallen off the bus|Unable to determine the device handle", re.IGNORECASE), LOST),
    (re.compile(r"No devices were found", re.IGNORECASE), NO_DEVICES),
)
CODES = {6: NO_DEVICES, 9: NO_DRIVER, 15: LOST, 18: MISMATCH}
PCI_ADDRESS = r"[0-9A-Fa-f]{4,8}(?::[0-9A-Fa-f]{2}){2}\.[0-7]"
# "Unable to determine the device handle for GPU0: 0000:34:00.0: Unknown Error", in older drivers without the index.
LOST_GPU = re.compile(rf"device handle for GPU\s*(?:\d+:\s*)?({PCI_ADDRESS})", re.IGNORECASE)
LOST_VALUE = "GPU is lost"
MIG_LINE = re.compile(r"^\s+MIG\s+(\S+)\s+Device\s+(\d+):\s+\(UUID:\s+(MIG-[^)\s]+)\)")
GPU_LINE = re.compile(r"^GPU\s+\d+:.*\(UUID:\s+(GPU-[^)\s]+)\)")
TEXT_LENGTH = 500


class Report(NamedTuple):
    """All that nvidia-smi says: rows by PCI address (see `gpu_row`), and why it said no more."""

    installed: bool
    driver: Optional[str]
    rows: dict[str, dict[str, Any]]
    lost: list[str]
    error: Optional[str]
    text: Optional[str]


def ask(host: Host) -> Report:
    """Ask nvidia-smi for its GPUs: two calls, one more each for remapped rows (older drivers) and MIG devices."""
    known = host.run(COMMAND, "--help-query-gpu")
    if known is None:
        return Report(False, None, {}, [], None, None)
    fields = known_fields(known.text)
    if known.code != 0 or not fields:
        return Report(True, None, {}, lost_gpus(known.text), *failure(known))
    answer = host.run(COMMAND, f"--query-gpu={','.join(fields)}", FORMAT) or Answer(None, "")
    answered = parse_rows(answer.text, fields)
    rows = {normal_address(row[ADDRESS]): row for row in answered}
    if rows and not set(OWN_QUERY) & set(fields):
        own = (ADDRESS, *OWN_QUERY)
        more = host.run(COMMAND, f"--query-remapped-rows=gpu_bus_id,{','.join(OWN_QUERY)}", FORMAT)
        for row in parse_rows(more.text, own) if more is not None and more.code == 0 else []:
            rows.get(normal_address(row[ADDRESS]), {}).update(row)
    mig: dict[str, list[dict[str, str]]] = {}
    if any(value(row.get("mig.mode.current")) == "Enabled" for row in rows.values()):
        listed = host.run(COMMAND, "-L")
        mig = mig_devices(listed.text) if listed is not None else {}
    lost = sorted({*lost_gpus(answer.text), *(at for at, row in rows.items() if is_lost(row))})
    error, text = failure(answer, bool(lost))
    version = next((row["driver_version"] for row in answered if value(row.get("driver_version"))), None)
    facts = {at: gpu_row(row, mig.get(row.get("uuid", ""), [])) for at, row in rows.items()}
    return Report(True, version, facts, lost, error, text)


def known_fields(text: str) -> tuple[str, ...]:
    """Those of FIELDS that the help of this driver's nvidia-smi names; each stands in double quotes there."""
    named = set(re.findall(r'"([a-z0-9_.]+)"', text))
    return tuple(field for field in FIELDS if field in named)


def parse_rows(text: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV answer; lines of another length or without an address are messages, not rows."""
    rows = []
    for line in csv.reader(text.splitlines(), skipinitialspace=True):
        row = dict(zip(fields, (cell.strip() for cell in line)))
        if len(line) == len(fields) and re.fullmatch(PCI_ADDRESS, row.get(ADDRESS, "")):
            rows.append(row)
    return rows


def normal_address(address: str) -> str:
    """nvidia-smi's 00000000:1B:00.0 as sysfs writes it: 0000:1b:00.0."""
    domain, rest = address.lower().split(":", 1)
    return f"{int(domain, 16):04x}:{rest}"


def value(text: Optional[str]) -> Optional[str]:
    """A cell's value; None for N/A, Not Supported and every other message in brackets."""
    if text is None or text in ("", "N/A", "Not Supported") or (text.startswith("[") and text.endswith("]")):
        return None
    return text


def gpu_row(row: dict[str, str], mig: list[dict[str, str]]) -> dict[str, Any]:
    """One GPU's facts from its cells; None for what the GPU or the driver does not have."""
    return {
        "index": number(row.get("index")),
        "uuid": value(row.get("uuid")),
        "serial": value(row.get("serial")),
        "name": value(row.get("name")),
        "memory_mib": number(row.get("memory.total")),
        "persistence": truth(row.get("persistence_mode")),
        "ecc": truth(row.get("ecc.mode.current")),
        "ecc_uncorrected": number(row.get("ecc.errors.uncorrected.volatile.total")),
        "remap_pending": truth(row.get(PENDING)),
        "remap_failed": truth(row.get(FAILURE)),
        "recovery_action": value(row.get("gpu_recovery_action")),
        "mig": truth(row.get("mig.mode.current")),
        "mig_pending": truth(row.get("mig.mode.pending")),
        "mig_devices": mig,
        "fabric_state": fabric(row.get("fabric.state")),
        "fabric_status": fabric(row.get("fabric.status")),
        "compute_mode": value(row.get("compute_mode")),
    }


def number(text: Optional[str]) -> Optional[int]:
    """A whole number, as in 81559."""
    found = value(text)
    return int(found) if found is not None and found.isdigit() else None


def truth(text: Optional[str]) -> Optional[bool]:
    """Enabled and Disabled, Yes and No, 1 and 0."""
    words = {"enabled": True, "yes": True, "1": True, "disabled": False, "no": False, "0": False}
    return words.get((value(text) or "").lower())


def fabric(text: Optional[str]) -> Optional[str]:
    """State or status of the fabric; some drivers write the field's name before it."""
    found = value(text)
    return None if found is None else re.sub(r"^(state|status)\s+", "", found)


def is_lost(row: dict[str, str]) -> bool:
    """Whether a row's cells say that the GPU is lost."""
    return any(LOST_VALUE in cell for cell in row.values())


def lost_gpus(text: str) -> list[str]:
    """Addresses of the GPUs that nvidia-smi could not open."""
    return sorted({normal_address(address) for address in LOST_GPU.findall(text)})


def failure(answer: Answer, lost: bool = False) -> tuple[Optional[str], Optional[str]]:
    """The kind of a failure and the words of it; (None, None) for an answer without one."""
    if answer.code is None:
        return TIMEOUT, None
    words = answer.text.strip()[:TEXT_LENGTH] or None
    for pattern, kind in TEXTS:
        if pattern.search(answer.text):
            return kind, words
    if lost:
        return LOST, words
    return (None, None) if answer.code == 0 else (CODES.get(answer.code, FAILED), words)


def mig_devices(text: str) -> dict[str, list[dict[str, str]]]:
    """MIG devices by their GPU's uuid, from `nvidia-smi -L`: profile and uuid, in the order of their numbers."""
    found: dict[str, list[dict[str, str]]] = {}
    current: list[dict[str, str]] = []
    for line in text.splitlines():
        gpu, device = GPU_LINE.match(line), MIG_LINE.match(line)
        if gpu:
            current = found.setdefault(gpu.group(1), [])
        elif device:
            current.append({"profile": device.group(1), "uuid": device.group(3)})
    return found
