"""Fit a lab host with fake GPUs and the stub NVIDIA repositories."""

from __future__ import annotations

import io
import json
import tarfile
import time
from dataclasses import dataclass
from typing import Any

from docker.models.containers import Container

from lab import engine, gpu_description, hosts, images, recipe_stub_nvidia
from lab.errors import LabError
from lab.report import QuietReport, Report

#: Where a fitted host sees the repositories.
ROOT = "/opt/stub-nvidia"
SEEN = f"/media/redoubt/{recipe_stub_nvidia.FOLDER}"
HARDWARE = "etc/stub-nvidia/hardware.json"
COMMON = "compute/cuda/repos/debian13/x86_64/stub-nvidia-common_1.0_all.deb"
STATE = "/var/lib/stub-nvidia/state.json"


@dataclass(frozen=True)
class Repository:
    """A stub repository as a fitted host sees it: for `deb [signed-by=KEY] URI /`."""

    uri: str
    key: str


def repositories() -> dict[str, Repository]:
    """The stub repositories by what they play: `cuda` and `toolkit`. The keys are ASCII-armoured."""
    table = recipe_stub_nvidia.table()
    return {
        name: Repository(f"file:{ROOT}/{about['folder']}", f"{ROOT}/{about['folder']}/stub.pub")
        for name, about in table["repositories"].items()
        if about["label"]
    }


def fit(name: str, description: str, report: Report | None = None) -> None:
    """Give the host the hardware of lab/gpus/DESCRIPTION.yml, as if it had just been started with it.

    The hardware stays over restarts; packages that are installed stay too. Raises LabError where there is no such host
    or description, or the host has no medium.
    """
    report = report or QuietReport()
    hardware = gpu_description.load(description)
    images.build(report, ["stub-nvidia"])
    item = _container(name)
    with report.phase(f"Fit {name} with {description}"):
        item.put_archive("/", _archive(HARDWARE, json.dumps(hardware, indent=2) + "\n"))
        # The host must have been made with its medium, where the package is.
        _run(item, "dpkg", "-i", f"{SEEN}/{COMMON}")
        _run(item, "ln", "-sfn", SEEN, ROOT)
        _run(item, "rm", "-f", STATE)
        _run(item, "systemctl", "restart", "stub-nvidia-boot")


def set_faults(name: str, **faults: Any) -> None:
    """Set faults of the fake GPUs (missing_gpus, lost_gpus, fabric, loaded_driver, ...); None takes one away."""
    words = [f"{key}={'' if value is None else json.dumps(value)}" for key, value in faults.items()]
    _run(_container(name), "stub-nvidia", "fault", *words)


def _container(name: str) -> Container:
    client = engine.connect()
    host = hosts.get(name)
    if client is None or not host.running:
        raise LabError(f"host {name} is off: `./redoubt lab up {name}` starts it")
    return client.containers.get(host.container_id)


def _run(item: Container, *command: str) -> None:
    code, output = item.exec_run(list(command))
    if code:
        text = bytes(output).decode(errors="replace").strip()  # type: ignore[arg-type]  # not streamed: bytes
        raise LabError(f"{item.name}: {' '.join(command)} ended with {code}:\n{text[-2000:]}")


def _archive(path: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(path)
        info.size, info.mode, info.mtime = len(text.encode()), 0o644, time.time()
        tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()
