"""NVIDIA's PCI ids: what a device is before any driver can say it.

Sources of the ids: the list of compatible GPUs in NVIDIA/open-gpu-kernel-modules, README of 595.45.04 and of a later
release (2909, 31c3), and pciutils/pciids, snapshot of 2026-08-22 (all that is older than Turing, and the NVSwitches).
Memory in MiB is what nvidia-smi was seen to report for the product as delivered (with ECC on where it is delivered so);
None where no such report was found. MIG: NVIDIA's MIG user guide, "Supported GPUs" of R610 and, for B300 and GB300,
"Deployment considerations" of R620. NVLink generation: NVIDIA's data sheets, not verified row by row.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

NVIDIA = "10de"

SXM, PCIE, SUPERCHIP = "SXM", "PCIe", "superchip"

MAXWELL, PASCAL, VOLTA, TURING, AMPERE = "Maxwell", "Pascal", "Volta", "Turing", "Ampere"
ADA, HOPPER, BLACKWELL = "Ada", "Hopper", "Blackwell"
GRACE_HOPPER, GRACE_BLACKWELL = "Grace-Hopper", "Grace-Blackwell"

# NVIDIA driver installation guide, "Kernel modules": open modules from Turing on, nothing else from Blackwell on and
# with Grace.
CLOSED_ONLY = (MAXWELL, PASCAL, VOLTA)
OPEN_ONLY = (BLACKWELL, GRACE_HOPPER, GRACE_BLACKWELL)


class Product(NamedTuple):
    """What one PCI device id stands for; None is "not known"."""

    product: Optional[str]
    generation: Optional[str]
    form: Optional[str] = None
    memory_mib: Optional[int] = None
    mig_capable: Optional[bool] = None
    # Generation of the product's NVLink; None: it has none, or not known where product is None.
    nvlink: Optional[int] = None

    @property
    def supports_open_module(self) -> Optional[bool]:
        """Whether NVIDIA's open kernel modules drive it."""
        return None if self.generation is None else self.generation not in CLOSED_ONLY

    @property
    def needs_open_module(self) -> Optional[bool]:
        """Whether nothing but NVIDIA's open kernel modules drives it."""
        return None if self.generation is None else self.generation in OPEN_ONLY


UNKNOWN = Product(None, None)

PRODUCTS: dict[str, Product] = {
    # Maxwell, Pascal
    "13f2": Product("Tesla M60", MAXWELL, PCIE, None, False),
    "17fd": Product("Tesla M40", MAXWELL, PCIE, None, False),
    "15f7": Product("Tesla P100 PCIe 12GB", PASCAL, PCIE, None, False),
    "15f8": Product("Tesla P100 PCIe 16GB", PASCAL, PCIE, None, False),
    "15f9": Product("Tesla P100 SXM2 16GB", PASCAL, SXM, None, False, 1),
    "1b38": Product("Tesla P40", PASCAL, PCIE, 22919, False),
    "1bb3": Product("Tesla P4", PASCAL, PCIE, None, False),
    # Volta
    "1db1": Product("Tesla V100 SXM2 16GB", VOLTA, SXM, None, False, 2),
    "1db4": Product("Tesla V100 PCIe 16GB", VOLTA, PCIE, None, False),
    "1db5": Product("Tesla V100 SXM2 32GB", VOLTA, SXM, 32768, False, 2),
    "1db6": Product("Tesla V100 PCIe 32GB", VOLTA, PCIE, None, False),
    "1db8": Product("Tesla V100 SXM3 32GB", VOLTA, SXM, None, False, 2),
    "1df6": Product("Tesla V100S PCIe 32GB", VOLTA, PCIE, None, False),
    # Turing
    "1eb4": Product("T4G", TURING, PCIE, None, False),
    "1eb8": Product("Tesla T4", TURING, PCIE, 15360, False),
    # Ampere
    "20b0": Product("NVIDIA A100-SXM4-40GB", AMPERE, SXM, 40960, True, 3),
    "20b2": Product("NVIDIA A100-SXM4-80GB", AMPERE, SXM, 81920, True, 3),
    "20b3": Product("NVIDIA A100-SXM-64GB", AMPERE, SXM, None, True, 3),
    "20b5": Product("NVIDIA A100 80GB PCIe", AMPERE, PCIE, 81920, True, 3),
    "20b7": Product("NVIDIA A30", AMPERE, PCIE, 24576, True, 3),
    "20bd": Product("NVIDIA A800-SXM4-40GB", AMPERE, SXM, None, None, 3),
    "20f1": Product("NVIDIA A100-PCIE-40GB", AMPERE, PCIE, 40960, True, 3),
    "20f3": Product("NVIDIA A800-SXM4-80GB", AMPERE, SXM, None, None, 3),
    "20f5": Product("NVIDIA A800 80GB PCIe", AMPERE, PCIE, None, None, 3),
    "2230": Product("NVIDIA RTX A6000", AMPERE, PCIE, 49140, False, 3),
    "2235": Product("NVIDIA A40", AMPERE, PCIE, 46068, False, 3),
    "2236": Product("NVIDIA A10", AMPERE, PCIE, 23028, False),
    "2237": Product("NVIDIA A10G", AMPERE, PCIE, None, False),
    "25b6": Product("NVIDIA A2 or A16", AMPERE, PCIE, 15356, False),
    # Ada
    "26b1": Product("NVIDIA RTX 6000 Ada Generation", ADA, PCIE, 49140, False),
    "26b5": Product("NVIDIA L40", ADA, PCIE, 46068, False),
    "26b9": Product("NVIDIA L40S", ADA, PCIE, 46068, False),
    "26ba": Product("NVIDIA L20", ADA, PCIE, None, False),
    "27b6": Product("NVIDIA L2", ADA, PCIE, None, False),
    "27b8": Product("NVIDIA L4", ADA, PCIE, 23034, False),
    # Hopper
    "2321": Product("NVIDIA H100 NVL", HOPPER, PCIE, 95830, True, 4),
    "2322": Product("NVIDIA H800 PCIe", HOPPER, PCIE, None, None, 4),
    "2324": Product("NVIDIA H800", HOPPER, SXM, None, None, 4),
    "2329": Product("NVIDIA H20", HOPPER, SXM, 97871, True, 4),
    "232c": Product("NVIDIA H20-3e", HOPPER, SXM, None, None, 4),
    "2330": Product("NVIDIA H100 80GB HBM3", HOPPER, SXM, 81559, True, 4),
    "2331": Product("NVIDIA H100 PCIe", HOPPER, PCIE, 81559, True, 4),
    "2335": Product("NVIDIA H200", HOPPER, SXM, 143771, True, 4),
    "2339": Product("NVIDIA H100", HOPPER, SXM, None, True, 4),
    "233a": Product("NVIDIA H800 NVL", HOPPER, PCIE, None, None, 4),
    "233b": Product("NVIDIA H200 NVL", HOPPER, PCIE, 143771, True, 4),
    "2342": Product("NVIDIA GH200", GRACE_HOPPER, SUPERCHIP, 97871, True, 4),
    "2348": Product("NVIDIA GH200 144G HBM3e", GRACE_HOPPER, SUPERCHIP, None, None, 4),
    # Blackwell
    "2901": Product("NVIDIA B200", BLACKWELL, SXM, 183359, True, 5),
    "2909": Product("NVIDIA B200", BLACKWELL, SXM, None, True, 5),
    "2941": Product("NVIDIA GB200", GRACE_BLACKWELL, SUPERCHIP, 189471, True, 5),
    "2bb1": Product("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", BLACKWELL, PCIE, 97887, True),
    "2bb4": Product("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", BLACKWELL, PCIE, 97887, True),
    "2bb5": Product("NVIDIA RTX PRO 6000 Blackwell Server Edition", BLACKWELL, PCIE, 97887, True),
    "3182": Product("NVIDIA B300 SXM6 AC", BLACKWELL, SXM, 275040, True, 5),
    "31c2": Product("NVIDIA GB300", GRACE_BLACKWELL, SUPERCHIP, 284208, None, 5),
    "31c3": Product("NVIDIA GB300", GRACE_BLACKWELL, SUPERCHIP, None, None, 5),
}

# One device id, several products: told apart by the subsystem's id (same README).
BY_SUBSYSTEM: dict[tuple[str, str], str] = {
    ("25b6", "14a9"): "NVIDIA A16",
    ("25b6", "157e"): "NVIDIA A2",
    ("2342", "16eb"): "NVIDIA GH200 120GB",
    ("2342", "1805"): "NVIDIA GH200 120GB",
    ("2342", "1809"): "NVIDIA GH200 480GB",
}

# First and last id that pci.ids gives to chips of one generation, with no chip of another between them.
RANGES: tuple[tuple[int, int, str], ...] = (
    (0x1340, 0x1436, MAXWELL),
    (0x15C2, 0x15FF, PASCAL),
    (0x1613, 0x1676, MAXWELL),
    (0x1725, 0x172F, PASCAL),
    (0x174D, 0x17FD, MAXWELL),
    (0x1B00, 0x1D56, PASCAL),
    (0x1D81, 0x1DF6, VOLTA),
    (0x1E02, 0x1FF9, TURING),
    (0x2080, 0x20FF, AMPERE),
    (0x2182, 0x21D1, TURING),
    (0x2200, 0x223F, AMPERE),
    (0x2302, 0x23F0, HOPPER),
    (0x2414, 0x25FB, AMPERE),
    (0x2681, 0x28F8, ADA),
    (0x2900, 0x2F58, BLACKWELL),
    (0x3180, 0x3340, BLACKWELL),
)

# Bridges on the baseboard that a fabric manager drives. From NVLink 5 on the switches are not on the host's PCI bus.
NVSWITCHES: dict[str, Product] = {
    "1af1": Product("A100 NVSwitch", AMPERE, SXM, nvlink=3),
    "22a3": Product("H100 NVSwitch", HOPPER, SXM, nvlink=4),
}


def identify(device: str, subsystem: Optional[str] = None) -> Product:
    """The product of a GPU's PCI device id (four hex digits; subsystem likewise); UNKNOWN, or only a generation."""
    known = PRODUCTS.get(device)
    if known is not None:
        return known._replace(product=BY_SUBSYSTEM.get((device, subsystem or ""), known.product))
    number = int(device, 16)
    for first, last, generation in RANGES:
        if first <= number <= last:
            return Product(None, generation)
    return UNKNOWN
