"""What Prometheus watches, and whether a host's GPUs are among it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from planner.document import Host, Image, Model
from planner.problems import Problem
from planner.registry import ENGINES

EXPORTER_PORT = 9100
GPU_PORT = 9400
GPU_IMAGE = "dcgm_exporter"

# Where a port of another host is reached: (host, port, what listens there) -> HOST:PORT.
Reach = Callable[[Host, int, str], str]


def has_gpus(host: Host) -> bool:
    """Whether the inventory says that a host serves with GPUs: preflight_gpus, else a model that wants one.

    Not asked of the host itself: the monitoring host must come to the same answer without the others' facts.
    """
    if "inference" not in host.kinds:
        return False
    return bool(host.gpus) if host.gpus is not None else any(model.gpus != 0 for model in host.models)


def gpus_watched(host: Host, images: Mapping[str, Image]) -> bool:
    """Whether a DCGM exporter runs on the host: from its image where the lock has one, or from packages."""
    available = {"package": True, "container": GPU_IMAGE in images}
    return has_gpus(host) and available.get(host.dcgm_method, False)


def gpu_warnings(host: Host, images: Mapping[str, Image], seen: int | None) -> list[str]:
    """What an operator should know of the host's GPU monitoring. `seen`: GPUs on its PCI bus, None = not asked."""
    if not has_gpus(host) or host.dcgm_method == "none":
        return []
    if not gpus_watched(host, images):
        fix = f"add {GPU_IMAGE} to redoubt_images, or set dcgm_method to package or none"
        return [f"the GPUs of {host.name} are not watched: {fix}"]
    if host.gpus is None and seen == 0:
        return [f"{host.name} has no GPU, but monitoring looks for its DCGM exporter: set preflight_gpus: 0"]
    return []


def dcgm_problems(driver_version: str, method: str | None, package_version: str | None) -> list[Problem]:
    """What is wrong where two roles install DCGM: the driver's, in `driver_version` (empty = not at all), and dcgm."""
    plain = (package_version or "").rpartition(":")[2].partition("-")[0]
    if method != "package" or not driver_version or not plain or plain == driver_version:
        return []
    why = f"the driver's packages bring DCGM {driver_version} (nvidia_driver_dcgm_version) and hold it"
    fix = 'write one version into both, or nvidia_driver_dcgm_version: ""'
    return [Problem("dcgm_package_version", why, fix, package_version)]


def gpus_expected(host: Host, driver: Mapping[str, Any] | None, seen: int | None) -> int:
    """How many GPUs a host that serves should have: preflight_gpus, else those on its bus that are for its driver.

    driver: the plan's `driver`; seen: NVIDIA GPUs on the bus, None = not asked.
    """
    if "inference" not in host.kinds:
        return 0
    if host.gpus is not None:
        return host.gpus if isinstance(host.gpus, int) else len(host.gpus)
    return len(driver["gpus"]) if driver else seen or 0


def targets(
    hosts: Sequence[Host],
    images: Mapping[str, Image],
    reach: Reach,
    ports: Callable[[Host], Mapping[str, int]],
) -> dict[str, list[dict[str, Any]]]:
    """Return the targets by kind. `ports`: the port of each model of a host, by the model's place."""
    serving = [host for host in hosts if "inference" in host.kinds]
    return {
        "engines": [
            _engine(host, model, reach(host, ports(host)[model.where], "its engine"))
            for host in serving
            for model in host.models
            if model.engine in ENGINES
        ],
        "hosts": [
            {"target": reach(host, EXPORTER_PORT, "its node exporter"), "labels": {"host": host.name}} for host in hosts
        ],
        "gpus": [
            {"target": reach(host, GPU_PORT, "its DCGM exporter"), "labels": {"host": host.name}}
            for host in serving
            if gpus_watched(host, images)
        ],
        "gateways": [_gateway(host) for host in hosts if "gateway" in host.kinds],
    }


def _engine(host: Host, model: Model, reach: str) -> dict[str, Any]:
    return {
        "target": reach,
        "path": ENGINES[model.engine].metrics_path,
        "labels": {"model": model.name, "engine": model.engine, "host": host.name},
    }


def _gateway(host: Host) -> dict[str, Any]:
    name = host.server_name or host.address
    port = "" if host.https_port == 443 else f":{host.https_port}"
    return {
        "target": f"https://{name}{port}/healthz",
        # Several gateways share a name; the address says which one is meant.
        "address": host.address,
        "labels": {"host": host.name},
    }
