"""The GPUs as tab-separated lines, for readers that know no JSON: the mock NVML and the container's nvidia-smi.

`driver VERSION CUDA`; for each GPU `gpu` and the columns of `_gpu`; for each MIG device `mig` and GPU, PROFILE, UUID,
GI, CI, CAP.
"""

from __future__ import annotations

from .host import Gpu, Host

FLAT = "/run/stub-nvidia/nvml.tsv"
#: CUDA versions by driver branch, as nvmlSystemGetCudaDriverVersion gives them (CUDA's release notes).
CUDA = {"580": 13000, "590": 13010, "595": 13020}
#: /dev/nvidia-caps/nvidia-capN of the first MIG device. The real numbers come from the driver: these are the stub's.
FIRST_CAP = 3


def text(host: Host) -> str:
    """The lines; none where no driver is loaded."""
    driver = host.driver()
    if driver is None:
        return ""
    persistence = bool(host.state()["persistence"])
    gpus = host.gpus()
    lines: list[list[str | int]] = [["driver", driver, CUDA.get(driver.partition(".")[0], 0)]]
    lines += [_gpu(gpu, persistence) for gpu in gpus]
    lines += [
        ["mig", gpu.index, device["profile"], device["uuid"], device["gi"], device["ci"], cap]
        for cap, gpu, device in caps(gpus)
    ]
    return "".join("\t".join(str(word) or "-" for word in line) + "\n" for line in lines)


def caps(gpus: list[Gpu]) -> list[tuple[int, Gpu, dict[str, str]]]:
    """Each MIG device with its GPU and the number of its capability node."""
    devices = [(gpu, device) for gpu in gpus for device in gpu.mig_devices]
    return [(FIRST_CAP + number, gpu, device) for number, (gpu, device) in enumerate(devices)]


def _gpu(gpu: Gpu, persistence: bool) -> list[str | int]:
    vendor, _, device = gpu.device.partition(":")
    return [
        "gpu",
        gpu.index,
        gpu.address,
        f"{device}{vendor}",
        gpu.uuid,
        gpu.serial,
        gpu.product,
        gpu.memory_mib,
        0,
        int(gpu.ecc),
        int(gpu.mig_enabled) if gpu.mig_capable else "-",
        int(persistence),
        gpu.fabric_state,
        gpu.fabric_status,
        gpu.ecc_uncorrected,
        int(gpu.row_remap_failure),
        int(gpu.lost),
    ]
