"""The driver of one host's GPUs and all that must have its version: what to install, load, start and wait for. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from module_utils.gpu.pci import OURS, usable
from planner import driver_table
from planner.driver_files import files
from planner.driver_table import System
from planner.driver_wishes import Wishes
from planner.problems import Problem, Problems

FABRIC_MANAGER = "nvidia-fabricmanager.service"
PERSISTENCED = "nvidia-persistenced.service"
IMEX = "nvidia-imex.service"
# A kernel release stands in names of packages and paths.
_RELEASE = re.compile(r"\d[\w.+~-]*")
# The CUDA major version that a branch's driver speaks (NVIDIA, CUDA compatibility: 13.x from 580 on).
_CUDA_13 = 580


@dataclass(frozen=True)
class Hardware:
    """What the bus says: the rows of gpu_facts of the GPUs that can be ours, and which fabric there is."""

    gpus: Sequence[Mapping[str, Any]]
    nvswitches: int
    management: int

    @property
    def manager(self) -> bool:
        """Whether a fabric manager must bring up NVLink: switches on the bus, or their management functions."""
        return bool(self.nvswitches or self.management)

    @property
    def nvlink5(self) -> bool:
        """Whether the switches are managed over InfiniBand functions."""
        return bool(self.management)

    @property
    def imex(self) -> bool:
        """Whether memory is shared between hosts of one NVLink domain: Grace with Blackwell."""
        return any(gpu["generation"] == "Grace-Blackwell" for gpu in self.gpus)


@dataclass(frozen=True)
class Stack:
    """The decisions. Packages are NAME or NAME=VERSION-*; `first` go in a transaction before `packages`.

    repository: {name, url, suite, key_url, key_fingerprints} or None; modules: to be loaded now and at boot;
    expected: what gpu_ready waits for (see module_utils/gpu/ready.py); problems refuse, warnings do not.
    """

    version: str
    branch: int
    module: str
    first: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    repository: Mapping[str, Any] | None = None
    stream: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def stack(gpu: Mapping[str, Any], host: Mapping[str, Any], wishes: Wishes, today: date) -> Stack:
    """Return the decisions for a host with GPUs.

    gpu: redoubt_gpu of gpu_facts; host: Ansible's facts (see driver_table.system); today: for ends of life.
    """
    problems = Problems()
    hardware = Hardware(usable(gpu["gpus"]), len(gpu["nvswitches"]), len(gpu["nvlink_management"]))
    branch = _branch(wishes, problems, today)
    module = _module(hardware, wishes, problems)
    if branch is None or module is None:
        return Stack(wishes.version, branch or 0, module or "", problems=tuple(problems.found))
    this = _kernel(driver_table.system(host), wishes, problems)
    _check_generations(hardware, branch, module, problems)
    _check_state(gpu, wishes, this, problems)
    names = _packages(hardware, wishes, this, branch, module, problems)
    repository = _repository(wishes, this, problems)
    found = driver_table.packages(wishes.source, this, branch, module)
    modules = ["nvidia", "nvidia_uvm", *(["ib_umad", "mlx5_ib"] if hardware.nvlink5 else [])]
    modules += ["nvidia_peermem"] if wishes.peermem else []
    units = [PERSISTENCED, *([FABRIC_MANAGER] if hardware.manager else []), *([IMEX] if wishes.imex_nodes else [])]
    return Stack(
        version=wishes.version,
        branch=branch,
        module=module,
        first=_first(wishes, this),
        packages=tuple(names),
        conflicts=tuple(found[1]) if found else (),
        repository=repository,
        stream=_stream(wishes, this, branch, module),
        files=files(wishes, this, modules, driver_table.file_prefix(wishes.source, this, module)),
        modules=tuple(modules),
        units=tuple(units),
        expected={
            "driver": wishes.version,
            "flavour": module,
            "gpus": [row["address"] for row in hardware.gpus],
            "fabric": hardware.manager,
            "count": wishes.expected_gpus,
            "kernel": wishes.kernel,
        },
        problems=tuple(problems.found),
        warnings=tuple(problems.warnings),
    )


def _kernel(this: System, wishes: Wishes, problems: Problems) -> System:
    """Return the system with the kernel that the module is built for: the running one, or the one that comes next."""
    if not wishes.kernel:
        return this
    if not _RELEASE.fullmatch(wishes.kernel):
        fix = "write a folder's name below /lib/modules, such as 6.12.94+deb13-amd64, or nothing for the running one"
        problems.add("nvidia_driver_kernel", "it is no kernel release", fix, wishes.kernel)
    return replace(this, kernel=wishes.kernel)


def _branch(wishes: Wishes, problems: Problems, today: date) -> int | None:
    where, branch = "nvidia_driver_version", driver_table.branch_of(wishes.version)
    if branch is None:
        fix = "write a whole version, such as 580.126.20"
        problems.add(where, "it is no driver version; the set is installed in one exact version", fix, wishes.version)
        return None
    ends = driver_table.end_of_life(branch)
    listed = ", ".join(driver_table.supported_branches(today))
    if ends is None:
        problems.warn(f"{where} is {wishes.version}: the end of life of branch {branch} is not known here ({listed})")
    elif ends < today:
        problems.warn(f"{where} is {wishes.version}: support of branch {branch} ended on {ends}; supported: {listed}")
    return branch


def _module(hardware: Hardware, wishes: Wishes, problems: Problems) -> str | None:
    """Return open or proprietary; None where no choice is right."""
    where = "nvidia_driver_module"
    unknown = [gpu["device"] for gpu in hardware.gpus if gpu["supports_open_module"] is None]
    closed = _products(hardware, "supports_open_module", False)
    only_open = _products(hardware, "needs_open_module", True)
    if closed and only_open:
        why = f"{', '.join(closed)} need the proprietary module, {', '.join(only_open)} the open one; a host has one"
        problems.add(where, why, "move the GPUs of one kind to another host", wishes.module)
        return None
    if wishes.module == "auto":
        if unknown:
            why = f"the GPU ids {', '.join(sorted(set(unknown)))} are not known here, so it cannot be chosen"
            problems.add(where, why, "write open (Turing and newer; Blackwell needs it) or proprietary", wishes.module)
            return None
        return "proprietary" if closed else "open"
    if wishes.module == "open" and closed:
        why = f"NVIDIA's open modules do not drive {', '.join(closed)}"
        problems.add(where, why, "write auto or proprietary", wishes.module)
        return None
    if wishes.module == "proprietary" and only_open:
        why = f"nothing but the open modules drives {', '.join(only_open)}"
        problems.add(where, why, "write auto or open", wishes.module)
        return None
    return wishes.module


def _products(hardware: Hardware, key: str, value: bool) -> list[str]:
    names = [gpu["product"] or f"{gpu['generation']} GPU {gpu['device']}" for gpu in hardware.gpus if gpu[key] is value]
    return list(dict.fromkeys(names))


def _check_generations(hardware: Hardware, branch: int, module: str, problems: Problems) -> None:
    last = driver_table.table()["last_for_old_gpus"]
    old = _products(hardware, "supports_open_module", False)
    if old and branch > last:
        why = f"branch {branch} has no driver for {', '.join(old)}; {last} is the last one"
        problems.add("nvidia_driver_version", why, f"write a version of branch {last}", branch)
    sxm = [gpu for gpu in hardware.gpus if gpu["form"] == "SXM" and (gpu["nvlink"] or 0) >= 5]
    if len(sxm) > 1 and not hardware.manager:
        problems.warn(
            "the host has several NVLink 5 GPUs but no function that manages their switches (15b3:1021, SW_MNG):"
            " without a fabric manager CUDA fails with error 802. Is this a virtual machine?"
        )


def _check_state(gpu: Mapping[str, Any], wishes: Wishes, this: System, problems: Problems) -> None:
    built = driver_table.signed_module(wishes.source, this, 0, "open") is None
    if gpu["secure_boot"] and built and not wishes.secure_boot_key_enrolled:
        why = (
            "Secure Boot is on, and the kernel loads no module that is built on the host until its key is enrolled,"
            " which needs somebody at the console"
        )
        key = "/var/lib/shim-signed/mok/MOK.der" if this.family == "Ubuntu" else "/var/lib/dkms/mok.pub"
        archive = ", or set nvidia_driver_source: distribution (signed modules)" if this.family == "Ubuntu" else ""
        fix = (
            f"switch Secure Boot off in the firmware{archive}, or run 'mokutil --import {key}', restart at the console,"
            " enrol the key and set nvidia_driver_secure_boot_key_enrolled: true"
        )
        problems.add("Secure Boot", why, fix)
    installed = gpu["driver"]["installed"]
    newer = installed and driver_table.version_key(installed) > driver_table.version_key(wishes.version)
    if newer and not wishes.allow_downgrade:
        fix = "write that version, or set nvidia_driver_allow_downgrade: true for this run"
        problems.add("nvidia_driver_version", f"{installed} is installed, which is newer", fix, wishes.version)
    if gpu["driver"]["nouveau"]:
        problems.warn("the kernel has loaded nouveau: the driver can take the GPUs only after a restart of the host")
    held = sorted({row["bound"] for row in gpu["gpus"] if row["bound"] not in OURS})
    if held:
        problems.warn(f"GPUs are bound to {', '.join(held)}: the driver will not get them")


def _packages(
    hardware: Hardware, wishes: Wishes, this: System, branch: int, module: str, problems: Problems
) -> list[str]:
    """Return everything of the one transaction."""
    found = driver_table.packages(wishes.source, this, branch, module)
    if found is None:
        why = f"{this.family} has no driver packages of its own that are known here"
        problems.add("nvidia_driver_source", why, "write nvidia", wishes.source)
        return []
    exact = [*found[0], *_fabric_packages(hardware, wishes, this, branch, problems)]
    # `-*` is the packaging's own revision: NVIDIA writes -1 and -1ubuntu1, the distributions more.
    names = [*(f"{name}={wishes.version}-*" for name in exact), *found[2]]
    signed = driver_table.signed_module(wishes.source, this, branch, module)
    names += [signed] if signed else driver_table.headers(this)
    if hardware.nvlink5:
        names += ["nvlsm"]  # has a version of its own
        names += [f"linux-modules-extra-{this.kernel}"] if this.family == "Ubuntu" else []  # holds mlx5_ib and ib_umad
    return [*names, *_dcgm(wishes, this, branch), *wishes.extra_packages]


def _fabric_packages(hardware: Hardware, wishes: Wishes, this: System, branch: int, problems: Problems) -> list[str]:
    wanted = [*(["manager", "nscq"] if hardware.manager else []), *(["nvsdm"] if hardware.nvlink5 else [])]
    wanted += ["imex"] if hardware.imex else []
    names = driver_table.fabric(wishes.source, this, branch)
    lacking = [key for key in wanted if key not in names]
    if lacking:
        why = f"{this.family} has no {', '.join(lacking)} for this host's NVLink switches, so CUDA would not start"
        problems.add("nvidia_driver_source", why, "write nvidia", wishes.source)
    return [names[key] for key in wanted if key in names]


def _dcgm(wishes: Wishes, this: System, branch: int) -> list[str]:
    if not wishes.dcgm_version or wishes.source != "nvidia":
        return []
    cuda = 13 if branch >= _CUDA_13 else 12
    epoch = "1:" if this.apt else ""  # rpm's database is asked without epochs
    names = ("datacenter-gpu-manager-4-core", f"datacenter-gpu-manager-4-cuda{cuda}")
    return [f"{name}={epoch}{wishes.dcgm_version}-*" for name in names]


def _first(wishes: Wishes, this: System) -> tuple[str, ...]:
    """Return what keeps the versions together: NVIDIA's pin for APT, the plugin that locks for DNF."""
    if not this.apt:
        return ("python3-dnf-plugin-versionlock",)
    return (f"nvidia-driver-pinning-{wishes.version}",) if wishes.source == "nvidia" else ()


def _stream(wishes: Wishes, this: System, branch: int, module: str) -> str:
    """Return the DNF module stream that holds the branch; EL 10 has no modules."""
    if this.family != "EL" or this.release != "9" or wishes.source != "nvidia":
        return ""
    return f"nvidia-driver:{branch}-{'open' if module == 'open' else 'dkms'}"


def _repository(wishes: Wishes, this: System, problems: Problems) -> Mapping[str, Any] | None:
    if wishes.source != "nvidia":
        return None
    known = driver_table.repository(this)
    if known is None:
        why = f"NVIDIA has no repository for {this.family} {this.release} that is known here"
        problems.add("nvidia_driver_source", why, "install a supported system, or write distribution", wishes.source)
        return None
    url = f"{wishes.repository_url.rstrip('/')}/{this.folder}"
    fingerprints = wishes.repository_key_fingerprints or ([known["fingerprint"]] if known else [])
    if not fingerprints:
        why = f"the fingerprint of NVIDIA's key for {this.repository} was not verified for this version of Redoubt"
        fix = (
            "look it up with NVIDIA and write it, with nvidia_driver_repository_key or nvidia_driver_repository_key_url"
        )
        problems.add("nvidia_driver_repository_key_fingerprints", why, fix)
    key_url = wishes.repository_key_url or (f"{url}/{known['key']}" if known and not wishes.repository_key else "")
    return {
        "name": "nvidia-driver",
        "url": f"{re.sub('/+$', '', url)}/",
        "suite": "/",
        "key": wishes.repository_key,
        "key_url": key_url,
        "key_fingerprints": list(fingerprints),
        "leftovers": [
            "/etc/apt/sources.list.d/nvidia-docker.list",
            "/etc/apt/sources.list.d/graphics-drivers-ubuntu-ppa*",
        ],
        "remove_leftovers": wishes.remove_old_sources,
    }
