"""The container toolkit of one host: which packages, and what stands against it, from the facts of gpu_facts.

Sources: CDI 0.7.0 is what the toolkit writes since 1.19, and Docker reads it since 26.1; nvidia-cdi-refresh is there
since 1.18 (NVIDIA container toolkit documentation, release notes and "Support for Container Device Interface"). Docker
knows CDI since 25.0 (Docker Engine release notes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner.document import Host
from planner.problems import Problems

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
_OLDEST = (1, 18)
_WRITES_CDI_07 = (1, 19)
_DOCKER_WITH_CDI = (25,)
_DOCKER_WITH_CDI_07 = (26, 1)

#: How the engine must be configured, by what the host wants; the docker role lays it over its own options.
CDI_OPTIONS: Mapping[str, Any] = {"features": {"cdi": True}}
LEGACY_OPTIONS: Mapping[str, Any] = {
    "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
    # The legacy hook opens devices behind systemd's back, and a daemon-reload closes them again; cgroupfs keeps
    # systemd out of it (NVIDIA container toolkit, "Troubleshooting").
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
}


def packages(version: str) -> list[str]:
    """Return the four packages in one version, as package_set takes them: any packaging of this version."""
    return [f"{name}={version}-*" for name in PACKAGES]


def engine_options(*, legacy: bool) -> dict[str, Any]:
    """Return the toolkit's share of Docker's daemon.json."""
    return {**CDI_OPTIONS, **LEGACY_OPTIONS} if legacy else dict(CDI_OPTIONS)


def entry(host: Host, gpus: int | tuple[str, ...] | None) -> dict[str, Any]:
    """Return the plan's part: whether the host gets what GPUs need, whether they are divided, Docker's options.

    A host that serves models and has GPUs gets all of it, whether a model uses them yet or not.
    """
    stack = "inference" in host.kinds and bool(gpus)
    return {
        "gpu_stack": stack,
        "mig": stack and bool(host.mig),
        "docker_options": engine_options(legacy=host.legacy_runtime) if stack else {},
    }


def engines(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is proved by a container each: the engines of a plan that have GPUs, with their verified image."""
    return [
        {
            "name": engine["name"],
            "image": engine["image"]["config_digest"] or engine["image"]["ref"],
            "devices": engine["devices"],
        }
        for engine in plan["engines"]
        if engine["devices"]
    ]


def number(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: 26.1.5+dfsg1 is (26, 1, 5)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def check(version: str, facts: Mapping[str, Any], problems: Problems, *, later: bool = False) -> None:
    """Note why this version cannot work on the host with these facts (redoubt_gpu); changes nothing.

    later: driver and engine are yet to be set up (check mode on an empty host): only versions are judged.
    """
    where = "nvidia_container_toolkit_version"
    wanted = number(version)
    if wanted < _OLDEST:
        why = "it does not keep the CDI specification up to date by itself, as versions from 1.18 on do"
        problems.add(where, why, "write 1.18.0 or newer", version)
    docker = facts["docker"]
    if docker["version"] is not None:
        _check_docker(where, version, docker, problems, later)
    if not facts["gpus"]:
        problems.add("GPUs of the host", "there is none on its PCI bus", "run this role for hosts with GPUs only")
    elif facts["driver"]["loaded"] is None and not later:
        why = "no NVIDIA driver is loaded, so no CDI specification can be written"
        problems.add("driver of the host", why, "run the host playbook with its driver role, and reboot if it asks")


def _check_docker(where: str, version: str, docker: Mapping[str, Any], problems: Problems, later: bool) -> None:
    engine = number(docker["version"])
    place = "Docker Engine of the host"
    newer = "install a newer engine: docker_source: docker, or a newer operating system"
    if engine < _DOCKER_WITH_CDI:
        problems.add(place, "it has no CDI, which begins with 25.0", newer, docker["version"])
    elif engine < _DOCKER_WITH_CDI_07 and number(version) >= _WRITES_CDI_07:
        why = f"toolkit {version} writes CDI 0.7.0, which Docker reads from 26.1 on"
        problems.add(place, why, f"{newer}; or set {where}: 1.18.2", docker["version"])
    elif not docker["cdi"] and not later:
        fix = "run the docker role with docker_planned_options: {features: {cdi: true}}; the host playbook does so"
        problems.add(place, "CDI is switched off in it", fix, docker["version"])
