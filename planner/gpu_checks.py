"""What the doctor looks at on a host with GPUs, above their driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.container_toolkit import PACKAGES
from planner.entries import endpoint


def checks(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the checks of a host whose plan has GPUs."""
    devices = [device for engine in plan["engines"] for device in engine["devices"]]
    found: list[dict[str, Any]] = [
        {
            "id": "gpus.cdi",
            "kind": "cdi",
            "devices": devices,
            "remedy": "Run 'systemctl restart nvidia-cdi-refresh', compare 'nvidia-ctk cdi list' with 'nvidia-smi -L',"
            " then run the host playbook.",
        },
        {
            "id": "gpus.toolkit",
            "kind": "one_version",
            "packages": list(PACKAGES),
            "remedy": "Run the host playbook: it installs all four in one version and holds them.",
        },
    ]
    if plan["mig"]:
        found.append(
            {
                "id": "gpus.mig",
                "kind": "mig",
                "path": "/etc/redoubt/mig/config.yaml",
                "remedy": "Run the host playbook; it says who uses a GPU that is to be divided anew.",
            }
        )
    return found


def figures(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the check of what Prometheus is told about the GPUs."""
    exporter = plan["exporter"]
    return {
        "id": "gpus.figures",
        "kind": "gpu_figures",
        "url": f"http://{endpoint(exporter['address'], exporter['port'])}/metrics",
        "expected": plan["gpus_expected"],
        "remedy": "Look at the checks gpu.* and at 'systemctl status redoubt-gpu-figures'; the monitoring playbook"
        " installs it. If a GPU was taken out on purpose, change preflight_gpus.",
    }
