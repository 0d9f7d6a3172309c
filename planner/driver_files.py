"""The files that go with the driver: modules, their options, and what keeps automatic upgrades away."""

from __future__ import annotations

from collections.abc import Sequence

from planner.driver_table import System
from planner.driver_wishes import Wishes

MANAGED = "Ansible managed"
# Names, from their beginning, that unattended-upgrades leaves alone. The kernel too: a new one without its headers has
# no driver after the next restart.
KEPT = (
    *("nvidia-", "libnvidia-", "libnvsdm", "libnvcuvid1", "libcuda1", "firmware-nvidia-", "cuda-"),
    *("nvlsm", "nvlink5", "datacenter-gpu-manager", "linux-(image|headers|modules)"),
)


def files(wishes: Wishes, this: System, modules: Sequence[str], prefix: str) -> dict[str, str]:
    """Return path -> text; an empty text stands for a file that shall not be there.

    prefix: what the names of the module's files begin with.
    """
    hmm = "# On some kernels CUDA cannot start with HMM (see CUDA's release notes).\n"
    hmm += f"options {prefix.replace('-', '_')}_uvm uvm_disable_hmm=1\n"
    found = {
        "/etc/modprobe.d/redoubt-nvidia.conf": (
            f"# {MANAGED}\n# Only one driver can have the GPUs. nova_core is nouveau's successor.\n"
            "blacklist nouveau\noptions nouveau modeset=0\nblacklist nova_core\n" + (hmm if wishes.disable_hmm else "")
        ),
        "/etc/modules-load.d/redoubt-nvidia.conf": f"# {MANAGED}\n" + "".join(f"{name}\n" for name in modules),
    }
    if wishes.imex_nodes:
        found["/etc/nvidia-imex/nodes_config.cfg"] = "".join(f"{node}\n" for node in wishes.imex_nodes)
    if this.apt:
        lines = "".join(f'    "^{name}";\n' for name in KEPT)
        text = (
            f"// {MANAGED}\n// The driver and all that has its version moves only with nvidia_driver_version.\n"
            f"Unattended-Upgrade::Package-Blacklist {{\n{lines}}};\n"
        )
        found["/etc/apt/apt.conf.d/52redoubt-nvidia"] = text if wishes.hold else ""
    return found
