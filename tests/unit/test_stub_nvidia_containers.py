"""What the stubs make of MIG and containers, in a folder that plays the host."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.recipe_stub_nvidia import HERE
from lab.stub_nvidia.tools import (
    ctk,
    mig,
    smi,
    views,
)
from tests.unit.stub_nvidia_support import fitted, state, write

QUERY = ["--query-gpu=index,uuid,pci.bus_id,memory.total,driver_version", "--format=csv,noheader,nounits"]
Capture = pytest.CaptureFixture[str]


# --- MIG ------------------------------------------------------------------------------------------------------------

MIG = """
version: v1
mig-configs:
  cut:
    - devices: [0]
      mig-enabled: true
      mig-devices: {"1g.10gb": 2, "3g.40gb": 1}
    - devices: [1, 2, 3, 4, 5, 6, 7]
      mig-enabled: false
  too-much:
    - devices: all
      mig-enabled: true
      mig-devices: {"4g.40gb": 2}
"""


def test_mig_is_asserted_applied_and_exported(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    write(host, "/etc/mig.yaml", MIG)
    words = ["-f", str(host.path("/etc/mig.yaml")), "-c"]
    assert mig.main(["assert", *words, "cut"], host) == 1
    assert mig.main(["apply", *words, "cut"], host) == 0
    assert mig.main(["assert", *words, "cut"], host) == 0
    before = host.state()["mig"]
    assert mig.main(["apply", *words, "cut"], host) == 0
    assert host.state()["mig"] == before
    capsys.readouterr()
    smi.main(["-L", "-i", "0"], host)
    assert len(capsys.readouterr().out.splitlines()) == 4
    mig.main(["export"], host)
    assert "3g.40gb: 1" in capsys.readouterr().out


def test_mig_assert_wants_every_gpu_named_and_apply_does_not(tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    write(host, "/etc/mig.yaml", "version: v1\nmig-configs:\n  one:\n    - {devices: [0], mig-enabled: false}\n")
    words = ["-f", str(host.path("/etc/mig.yaml")), "-c", "one"]
    assert mig.main(["apply", *words], host) == 0
    assert mig.main(["assert", *words, "-m"], host) == 0
    assert mig.main(["assert", *words], host) == 1


@pytest.mark.parametrize(("name", "words"), [("too-much", "do not fit"), ("absent", "not present: absent")])
def test_mig_refuses_what_cannot_be(tmp_path: Path, capsys: Capture, name: str, words: str) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    write(host, "/etc/mig.yaml", MIG)
    assert mig.main(["apply", "-f", str(host.path("/etc/mig.yaml")), "-c", name], host) == 1
    assert words in capsys.readouterr().err


def test_mig_needs_a_gpu_that_can(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "2xL40S-PCIe")
    write(host, "/etc/mig.yaml", "version: v1\nmig-configs:\n  every:\n    - {devices: all, mig-enabled: true}\n")
    assert mig.main(["apply", "-f", str(host.path("/etc/mig.yaml")), "-c", "every"], host) == 1
    assert "not MIG-capable" in capsys.readouterr().err


# --- containers -----------------------------------------------------------------------------------------------------


def test_cdi_names_every_gpu_by_index_and_uuid(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    assert ctk.main(["cdi", "generate", "--output=/var/run/cdi/nvidia.yaml"], host) == 0
    capsys.readouterr()
    assert ctk.main(["cdi", "list"], host) == 0
    names = capsys.readouterr().out.split()
    assert len(names) == 17
    assert {"nvidia.com/gpu=all", "nvidia.com/gpu=7", "nvidia.com/gpu=GPU-a4c123b1-612d-d272-d137-1c17149d4395"} <= set(
        names
    )


def test_cdi_names_mig_devices_and_not_their_gpu(tmp_path: Path) -> None:
    document = ctk.specification(fitted(tmp_path, "1xA100-MIG"))
    devices = {device["name"]: device["containerEdits"]["deviceNodes"] for device in document["devices"]}
    assert {"0:0", "0:3", "all"} <= set(devices)
    assert "0" not in devices
    assert [node["path"] for node in devices["0:1"]] == ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap4"]


@pytest.mark.parametrize("changes", [{"loaded_driver": None}, {"faults": {"loaded_driver": "580.95.05"}}])
def test_cdi_needs_a_driver_that_answers(tmp_path: Path, changes: dict[str, Any]) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    state(host, **changes)
    assert ctk.main(["cdi", "generate", "--output=/var/run/cdi/nvidia.yaml"], host) == 1
    assert not host.path("/var/run/cdi/nvidia.yaml").exists()


def test_docker_is_configured_without_losing_what_is_there(tmp_path: Path, capsys: Capture) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    write(host, "/etc/docker/daemon.json", '{"log-driver": "local"}')
    words = ["runtime", "configure", "--runtime=docker", "--cdi.enabled"]
    assert ctk.main([*words, "--dry-run"], host) == 0
    shown = json.loads(capsys.readouterr().out)
    assert json.loads(host.path("/etc/docker/daemon.json").read_text()) == {"log-driver": "local"}
    assert ctk.main(words, host) == 0
    assert json.loads(host.path("/etc/docker/daemon.json").read_text()) == shown
    assert shown["features"] == {"cdi": True}
    assert shown["runtimes"]["nvidia"] == {"args": [], "path": "nvidia-container-runtime"}


@pytest.fixture
def container_smi(tmp_path: Path) -> Path:
    """The container's nvidia-smi, made to look below the test's folder."""
    script = tmp_path / "nvidia-smi"
    text = (HERE / "payload/nvidia-smi-container").read_text()
    for place in ("/run/stub-nvidia", "/dev/nvidia"):
        text = text.replace(place, f"{tmp_path}/host{place}")
    script.write_text(text)
    return script


def test_a_container_counts_the_gpus_whose_nodes_it_has(tmp_path: Path, container_smi: Path) -> None:
    host = fitted(tmp_path / "host", "8xH100-SXM")
    views.refresh(host)
    for number in (0, 1, 2, 4, 5, 7):
        host.path(f"/dev/nvidia{number}").unlink()
    for shell in ("sh", *(["busybox"] if shutil.which("busybox") else [])):
        line = [shell, *(["sh"] if shell == "busybox" else []), str(container_smi)]
        listed = subprocess.run([*line, "-L"], capture_output=True, text=True, check=True).stdout.splitlines()
        uuids = [gpu.uuid for gpu in host.gpus()]
        assert listed == [
            f"GPU 0: NVIDIA H100 80GB HBM3 (UUID: {uuids[3]})",
            f"GPU 1: NVIDIA H100 80GB HBM3 (UUID: {uuids[6]})",
        ]
        asked = subprocess.run(
            [*line, *QUERY[1:], "--query-gpu=index,memory.total"], capture_output=True, text=True, check=True
        )
        assert asked.stdout == "0, 81559\n1, 81559\n"


def test_a_container_without_gpus_finds_none(tmp_path: Path, container_smi: Path) -> None:
    host = fitted(tmp_path / "host", "8xH100-SXM")
    views.refresh(host)
    for path in host.path("/dev").glob("nvidia[0-9]"):
        path.unlink()
    done = subprocess.run(["sh", str(container_smi), "-L"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, "No devices were found\n")
