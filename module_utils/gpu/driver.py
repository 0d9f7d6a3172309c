"""The kernel driver and what belongs to it: loaded, installed, built, held up by Secure Boot or a reboot."""

from __future__ import annotations

import os
import re
from typing import Any, Optional

from .host import Host

OPEN, PROPRIETARY = "open", "proprietary"
# Ubuntu and Debian, EL, Debian's own packages, NVIDIA's installer and merged /usr on 64-bit ARM.
LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
)
LIBRARY = re.compile(r"libnvidia-ml\.so\.([0-9]+(?:\.[0-9]+)+)")
# "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build …"
LOADED = re.compile(r"^NVRM version: NVIDIA UNIX .*?\s([0-9]+(?:\.[0-9]+)+)\s", re.MULTILINE)
DKMS = "/var/lib/dkms"
EFI = "/sys/firmware/efi"
# The vendor part is the GUID of EFI's global variables (UEFI specification, "Globally defined variables").
SECURE_BOOT = f"{EFI}/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
REBOOT = "/run/reboot-required"
# Debian's own packages keep several branches beside each other; this link leads to the folder of the chosen one, whose
# name the module's file has too: nvidia-current-open.ko.
ALTERNATIVE = "/etc/alternatives/nvidia"


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version, by which it sorts."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def driver(host: Host) -> dict[str, Any]:
    """Versions and flavours of the nvidia module; see gpu_facts for the keys."""
    told = host.read("/proc/driver/nvidia/version") or ""
    match = LOADED.search(told + "\n")
    loaded = host.read("/sys/module/nvidia/version") or (match.group(1) if match else None)
    installed, license_name = _modinfo(host)
    libraries = _libraries(host)
    return {
        "kernel": host.read("/proc/sys/kernel/osrelease"),
        "loaded": loaded,
        "loaded_flavour": (OPEN if "Open Kernel Module" in told else PROPRIETARY) if match else None,
        "installed": installed,
        # NVIDIA's open modules say "Dual MIT/GPL", the others "NVIDIA".
        "installed_flavour": (OPEN if "MIT" in license_name else PROPRIETARY) if license_name else None,
        "library": libraries[-1] if libraries else None,
        "libraries": libraries,
        "dkms": _dkms(host),
        "nouveau": host.exists("/sys/module/nouveau"),
        "nodes": [f"/dev/{name}" for name in host.names("/dev") if name.startswith("nvidia")],
    }


def secure_boot(host: Host) -> Optional[bool]:
    """Whether the firmware checks signatures; None without EFI, or where its variables are not to be read."""
    data = host.read_bytes(SECURE_BOOT)
    # Four bytes of attributes, then the value.
    return None if data is None or len(data) < 5 else data[4] == 1


def reboot(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Whether another driver than the loaded one waits for a reboot, and what the system itself asks for."""
    loaded, installed = found["loaded"], found["installed"]
    return {
        "driver": loaded is not None and installed is not None and loaded != installed,
        "system": host.exists(REBOOT),
        "packages": sorted(set((host.read(f"{REBOOT}.pkgs") or "").split())),
    }


def _modinfo(host: Host) -> tuple[Optional[str], str]:
    """Version and license of the module that `modprobe nvidia` would load now."""
    answer = host.run("modinfo", "nvidia")
    chosen = host.link_name(ALTERNATIVE)
    if answer is not None and answer.code != 0 and chosen:
        answer = host.run("modinfo", f"nvidia-{chosen}")
    lines = answer.text.splitlines() if answer is not None else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return fields.get("version", "").strip() or None, fields.get("license", "").strip()


def _libraries(host: Host) -> list[str]:
    """Versions of NVML in the library folders, oldest first; ldconfig points to the newest."""
    names = (name for folder in LIBRARY_FOLDERS for name in host.names(folder))
    matches = (LIBRARY.fullmatch(name) for name in names)
    return sorted({match.group(1) for match in matches if match}, key=version_key)


def _dkms(host: Host) -> list[dict[str, Any]]:
    """What `dkms status` says, from the tree it reads: added, built or installed, per version and kernel."""
    rows: list[dict[str, Any]] = []
    for module in host.names(DKMS):
        if not module.startswith("nvidia"):
            continue
        for version in host.names(f"{DKMS}/{module}"):
            folder = f"{DKMS}/{module}/{version}"
            # `kernel-…` are the links to what is installed; a version has its sources.
            if version.startswith("kernel-") or not os.path.lexists(host.path(f"{folder}/source")):
                continue
            row = {"module": module, "version": version}
            built = [
                {**row, "kernel": kernel, "state": _dkms_state(host, module, version, kernel, arch)}
                for kernel in host.names(folder)
                for arch in host.names(f"{folder}/{kernel}")
                if host.exists(f"{folder}/{kernel}/{arch}/module")
            ]
            rows += built or [{**row, "kernel": None, "state": "added"}]
    return rows


def _dkms_state(host: Host, module: str, version: str, kernel: str, arch: str) -> str:
    link = host.path(f"{DKMS}/{module}/kernel-{kernel}-{arch}")
    installed = os.path.islink(link) and os.readlink(link).endswith(f"{version}/{kernel}/{arch}")
    return "installed" if installed else "built"
