"""Loading the fake kernel module: at boot, by modprobe, or when a tool first asks for the GPUs."""

from __future__ import annotations

from typing import Any

from . import views
from .host import Host

#: What modprobe may be asked for, by its name with underscores.
DRIVER_MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nvidia_peermem")
#: Modules of the kernel that NVLink 5 hosts need.
OTHER_MODULES = ("mlx5_ib", "ib_umad")


def boot(host: Host) -> str | None:
    """What a restart does: the installed module becomes the loaded one; returns why none is, None where one is."""
    nouveau = bool(host.description().get("nouveau")) and not blacklisted(host)

    def change(state: dict[str, Any]) -> None:
        state.update(loaded_driver=None, persistence=False, modules=[], nouveau_loaded=nouveau)
        state.pop("fabric_manager", None)

    host.update(change)
    problem = load(host) if host.component("module") else "no module is installed"
    views.refresh(host)
    return problem


def load(host: Host) -> str | None:
    """Load the installed module; returns what modprobe would say where it cannot be, None where it is loaded."""
    state, version = host.state(), host.component("module")
    if state["loaded_driver"]:
        return None
    if version is None:
        return "Module nvidia not found."
    if state.get("nouveau_loaded", host.description().get("nouveau")):
        return "could not insert 'nvidia': No such device"
    if host.description().get("secure_boot") and not state.get("mok_enrolled"):
        return "could not insert 'nvidia': Key was rejected by service"
    host.update(lambda plain: plain.update(loaded_driver=version))
    return None


def blacklisted(host: Host) -> bool:
    """Whether modprobe's configuration keeps nouveau away."""
    folders = ("/etc/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d", "/run/modprobe.d")
    files = [path for folder in folders for path in host.path(folder).glob("*.conf")]
    return any("blacklist nouveau" in path.read_text(encoding="utf-8", errors="replace") for path in files)
