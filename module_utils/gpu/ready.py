"""Whether the GPUs can be used: one reading of gpu_facts against what was planned. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from .smi import MISMATCH, TIMEOUT

REBOOT = "Restart the host in a maintenance window; then run the host playbook again."
# State and status of a GPU that has joined the NVLink fabric.
JOINED = ("Completed", "Success")
MAKE_LOG = "/var/lib/dkms/nvidia*/*/build/make.log"
FABRIC_MANAGER, PERSISTENCED = "nvidia-fabricmanager", "nvidia-persistenced"


class Verdict(NamedTuple):
    """One aspect: driver, gpus, fabric, reboot, nouveau or persistence."""

    aspect: str
    ok: bool
    detail: str
    remedy: str


def verdicts(facts: dict[str, Any], expected: dict[str, Any]) -> list[Verdict]:
    """Judge every aspect.

    facts: redoubt_gpu (see gpu_facts); expected: {driver: version, flavour: open or proprietary, gpus: [addresses],
    fabric: whether a fabric manager of this host must bring up NVLink; count: GPUs that the host should have, 0: those
    on its bus; kernel: the release that must run, or empty}.
    """
    rows = [_driver(facts, expected), _gpus(facts, expected), _nouveau(facts), _reboot(facts, expected)]
    if expected["fabric"]:
        rows.append(_fabric(facts))
    elif any(row["fabric_state"] for row in facts["gpus"]):
        rows.append(_fabric_elsewhere(facts))
    return [*rows, _persistence(facts)]


def reboot_reasons(facts: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Why the planned driver can take the GPUs only after a restart; empty where it can now."""
    driver = facts["driver"]
    reasons = []
    if expected.get("kernel") and driver["kernel"] not in (None, expected["kernel"]):
        reasons.append(f"kernel {driver['kernel']} runs, {expected['kernel']} is wanted (nvidia_driver_kernel)")
    if driver["loaded"] and driver["loaded"] != expected["driver"]:
        said = _said(facts) if mismatched(facts) else ""
        reasons.append(f"driver {driver['loaded']} is loaded, {expected['driver']} is wanted{said}")
    elif driver["loaded_flavour"] and driver["loaded_flavour"] != expected["flavour"]:
        reasons.append(f"the {driver['loaded_flavour']} module is loaded, the {expected['flavour']} one is wanted")
    if driver["nouveau"]:
        reasons.append("nouveau is loaded and holds the GPUs")
    return reasons


def usable(facts: dict[str, Any]) -> set[str]:
    """Addresses of the GPUs that nvidia-smi lists and can reach."""
    return {row["address"] for row in facts["gpus"] if row["visible"] and not row["lost"]}


def mismatched(facts: dict[str, Any]) -> bool:
    """Whether the driver's libraries are of another version than its loaded module."""
    driver = facts["driver"]
    if facts["smi"]["error"] == MISMATCH:
        return True
    return bool(driver["loaded"]) and driver["library"] not in (None, driver["loaded"])


def fabric_states(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """State and status of the fabric, from each GPU that has one; see JOINED."""
    return [(row["fabric_state"], row["fabric_status"]) for row in facts["gpus"] if row["fabric_state"]]


def _said(facts: dict[str, Any]) -> str:
    """The first line of what nvidia-smi says instead of an answer, in brackets; empty where it answers."""
    return f" ({facts['smi']['text'].splitlines()[0]})" if facts["smi"]["error"] and facts["smi"]["text"] else ""


def unbuilt(facts: dict[str, Any], expected: dict[str, Any]) -> str:
    """Why a restart into the wanted kernel would leave the host without its driver; empty where it would not.

    Looks at what DKMS built; a module that DKMS does not know, such as a signed one of the distribution, is not judged.
    """
    kernel, wanted = expected.get("kernel"), expected["driver"]
    rows = [row for row in facts["driver"]["dkms"] if row["version"] == wanted]
    if not kernel or not rows or any(row["kernel"] == kernel and row["state"] == "installed" for row in rows):
        return ""
    built = ", ".join(f"{row['kernel']} {row['state']}" for row in rows if row["kernel"]) or "no kernel"
    return (
        f"DKMS has no module {wanted} for kernel {kernel} (nvidia_driver_kernel), only for {built}: with that kernel"
        f" the host would have no driver. Run 'dkms autoinstall -k {kernel}' and read {MAKE_LOG}"
    )


def _driver(facts: dict[str, Any], expected: dict[str, Any]) -> Verdict:
    driver, wanted = facts["driver"], expected["driver"]
    shown = f"loaded {driver['loaded']}, installed {driver['installed']}, library {driver['library']}"
    remedy = "Run the host playbook: it installs one set of one version and says whether a restart is needed."
    if mismatched(facts):
        return Verdict("driver", False, f"module and library are of two versions: {shown}{_said(facts)}", REBOOT)
    if driver["loaded"] is None and driver["installed"] is None:
        built = ", ".join(f"{row['version']} {row['state']}" for row in driver["dkms"])
        why = f"there is no module for the running kernel (DKMS: {built or 'nothing'}): {shown}"
        fix = f"Install this kernel's headers, then run 'dkms autoinstall' and read {MAKE_LOG}."
        return Verdict("driver", False, why, fix)
    if driver["loaded"] is None:
        return Verdict("driver", False, f"the module is not loaded: {shown}", "Run 'modprobe nvidia' and read 'dmesg'.")
    if facts["smi"]["error"] == TIMEOUT:
        return Verdict("driver", False, f"nvidia-smi does not answer: {shown}", "A GPU hangs: read 'dmesg' for Xid.")
    return Verdict("driver", driver["loaded"] == driver["installed"] == wanted, f"{shown}, planned {wanted}", remedy)


def _gpus(facts: dict[str, Any], expected: dict[str, Any]) -> Verdict:
    good = usable(facts)
    # What the driver knows and the bus does not have any more counts too.
    wanted = sorted({*expected["gpus"], *facts["smi"]["off_bus"]})
    missing = [address for address in wanted if address not in good]
    total = max(len(wanted), expected.get("count") or 0)
    absent = total - len(wanted)
    said = f" ({facts['smi']['text']})" if missing and facts["smi"]["text"] else ""
    if not facts["smi"]["installed"]:
        said = " (nvidia-smi is not installed: name its package in nvidia_driver_extra_packages)"
    detail = f"{total - absent - len(missing)} of {total} GPUs can be used"
    detail += f", not {', '.join(missing)}" if missing else ""
    detail += f", {absent} not on the PCI bus" if absent else ""
    remedy = "Read 'dmesg' for Xid 79 and the GPU's address; restart the host. If it stays away, look at the hardware."
    remedy += " If it was taken out on purpose, change preflight_gpus." if absent else ""
    return Verdict("gpus", not missing and not absent and total > 0, detail + said, remedy)


def _fabric(facts: dict[str, Any]) -> Verdict:
    """Hopper and later say how far the fabric is; before them only the service and its version tell."""
    service, own, loaded = facts["services"]["fabric_manager"], facts["fabric_manager"], facts["driver"]["loaded"]
    if service is None or own is None:
        return Verdict("fabric", False, f"{FABRIC_MANAGER} is not installed", "Run the host playbook.")
    if loaded and own != loaded:
        why = f"{FABRIC_MANAGER} is {own}, the loaded driver {loaded}: CUDA would fail with error 802"
        return Verdict("fabric", False, why, "Run the host playbook: it installs both in one version.")
    log = f"Read 'journalctl -u {FABRIC_MANAGER}' and /var/log/fabricmanager.log."
    if service["active"] != "active":
        return Verdict("fabric", False, f"{FABRIC_MANAGER} is {service['active']}", f"{log} Then start it.")
    told, bad = fabric_states(facts), _not_joined(facts)
    if bad:
        nvlink5 = " On NVLink 5 also 'lsmod' for ib_umad and mlx5_ib." if facts["nvlink_management"] else ""
        return Verdict("fabric", False, f"the fabric is {', '.join(bad)}, not Completed/Success", log + nvlink5)
    return Verdict("fabric", True, f"{FABRIC_MANAGER} {own}, {len(told)} GPUs Completed/Success", "")


def _fabric_elsewhere(facts: dict[str, Any]) -> Verdict:
    """The switch trays of GB200 and GB300, or the hypervisor of a virtual machine, have the fabric manager."""
    told, bad = fabric_states(facts), _not_joined(facts)
    if bad:
        remedy = "Look at the fabric manager that brings it up: on the rack's switch trays, or on the hypervisor."
        return Verdict("fabric", False, f"the fabric is {', '.join(bad)}, not Completed/Success", remedy)
    return Verdict("fabric", True, f"{len(told)} GPUs Completed/Success, managed outside this host", "")


def _not_joined(facts: dict[str, Any]) -> list[str]:
    """What GPUs tell of the fabric that is not good, each once."""
    return sorted({f"{state}/{status}" for state, status in fabric_states(facts) if (state, status) != JOINED})


def _nouveau(facts: dict[str, Any]) -> Verdict:
    loaded = facts["driver"]["nouveau"]
    return Verdict("nouveau", not loaded, "nouveau is loaded" if loaded else "nouveau is not loaded", REBOOT)


def _reboot(facts: dict[str, Any], expected: dict[str, Any]) -> Verdict:
    reasons = reboot_reasons(facts, expected)
    if facts["reboot"]["driver"] and not reasons:
        reasons = [f"driver {facts['driver']['loaded']} is loaded, {facts['driver']['installed']} is installed"]
    return Verdict("reboot", not reasons, "; ".join(reasons) or "no restart is pending for the driver", REBOOT)


def _persistence(facts: dict[str, Any]) -> Verdict:
    service = facts["services"]["persistenced"]
    off = [row["address"] for row in facts["gpus"] if row["persistence"] is False]
    active = service is not None and service["active"] == "active"
    state = "is not installed" if service is None else f"is {service['active']}"
    detail = f"{PERSISTENCED} {state}" + (f", persistence is off on {', '.join(off)}" if off else "")
    remedy = f"'systemctl enable --now {PERSISTENCED}': without it each start of an engine waits for the GPUs."
    return Verdict("persistence", active and not off, detail, remedy)
