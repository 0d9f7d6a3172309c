"""The module that reads a host's GPUs, on a host that is all stubs: they must mean the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import Host as ReaderHost

from lab.paths import REPOSITORY
from lab.stub_nvidia.tools import control, ctk, fabricmanager, views
from lab.stub_nvidia.tools.host import Host
from tests.unit.stub_nvidia_support import DRIVER, fitted, state, write

COMMANDS = {"nvidia-smi": "smi", "nvidia-ctk": "ctk", "nv-fabricmanager": "fabricmanager"}


def read(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the reader says of the host, with the stub tools as its commands."""
    views.refresh(host)
    folder = host.path("/usr/bin")
    for command, module in COMMANDS.items():
        text = f"import sys\nfrom lab.stub_nvidia.tools.{module} import main\nsys.exit(main())\n"
        write(host, f"/usr/bin/{command}", f"#!{sys.executable}\n{text}")
        (folder / command).chmod(0o755)
    monkeypatch.setenv("STUB_NVIDIA_ROOT", str(host.root))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "lab"))))
    for place in (*views.REPLACED, *views.MERGED):
        real = host.path(f"/{place}")
        if not real.is_symlink():
            real.parent.mkdir(parents=True, exist_ok=True)
            real.symlink_to(host.path(views.TREE) / place)
    found: dict[str, Any] = gather(ReaderHost(str(host.root), str(folder)))
    return found


def test_a_host_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = fitted(tmp_path, "8xH100-SXM", fabricmanager=DRIVER)
    write(host, f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{DRIVER}", "")
    write(host, f"/usr/src/nvidia-{DRIVER}/nvidia.ko", "module")
    control.main(["module-installed", DRIVER], host)
    fabricmanager.main([], host, stay=False)
    (tmp_path / "run").mkdir(exist_ok=True)
    ctk.main(["cdi", "generate", "--output=/run/cdi/nvidia.yaml"], host)
    found = read(host, monkeypatch)
    gpus = found["gpus"]
    assert [gpu["visible"] for gpu in gpus] == [True] * 8
    assert {(gpu["fabric_state"], gpu["fabric_status"], gpu["memory_mib"]) for gpu in gpus} == {
        ("Completed", "Success", 81559)
    }
    driver = found["driver"]
    assert (driver["loaded"], driver["library"], driver["loaded_flavour"]) == (DRIVER, DRIVER, "open")
    assert [row["state"] for row in driver["dkms"]] == ["installed"]
    assert "/dev/nvidia7" in driver["nodes"]
    (spec,) = found["toolkit"]["cdi"]
    assert (spec["kind"], spec["driver"], spec["stale"], len(spec["devices"])) == ("nvidia.com/gpu", DRIVER, False, 17)
    assert found["toolkit"]["version"] == "1.20.0"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"faults": {"loaded_driver": "580.95.05"}}, "version_mismatch"),
        ({"loaded_driver": None}, "no_driver"),
        ({"faults": {"lost_gpus": ["0000:18:00.0"]}}, "gpu_lost"),
    ],
)
def test_faults_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kind: str
) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    state(host, **changes)
    assert read(host, monkeypatch)["smi"]["error"] == kind


def test_mig_devices_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gpu,) = read(fitted(tmp_path, "1xA100-MIG"), monkeypatch)["gpus"]
    assert [device["profile"] for device in gpu["mig_devices"]] == ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
