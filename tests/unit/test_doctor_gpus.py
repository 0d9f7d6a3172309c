"""The doctor on hosts with GPUs: which checks there are, and what each finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from filter_plugins.doctor import doctor_inside_checks
from module_utils.gpu import checks
from module_utils.gpu.cdi import device_names
from module_utils.gpu.host import Host
from planner.container_toolkit import PACKAGES
from tests.unit.gpu_support import GpuHost
from tests.unit.test_container_toolkit import DOCKER, spec

SETTINGS = {
    "deep": False,
    "min_free_percent": 5,
    "prometheus_url": "",
    "certificate": "",
    "secret_patterns": [],
}


def plan(**more: Any) -> dict[str, Any]:
    return {"weights": [], "engines": [], "gateway": None, "monitoring": None, "gpu_stack": True, "mig": False, **more}


def wanted(plan_of_host: dict[str, Any]) -> list[str]:
    return [check["id"] for check in doctor_inside_checks(plan_of_host, SETTINGS) if check["id"].startswith("gpus.")]


@pytest.fixture
def h100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuHost:
    host = GpuHost(tmp_path, "8xH100-SXM").with_driver()
    host.says("docker", DOCKER)
    spec(host, [*device_names(host.facts()["gpus"]), "all"])
    monkeypatch.setattr(checks, "running", lambda: Host(str(host.root), str(host.bin), 60))
    return host


def test_which_checks() -> None:
    assert wanted(plan()) == ["gpus.cdi", "gpus.toolkit"]
    assert wanted(plan(mig=True)) == ["gpus.cdi", "gpus.toolkit", "gpus.mig"]
    assert wanted(plan(gpu_stack=False)) == []
    for check in doctor_inside_checks(plan(mig=True), SETTINGS):
        assert check["remedy"]


def test_cdi(h100: GpuHost) -> None:
    assert checks.cdi({"devices": ["0", "7"]})[0]
    assert checks.cdi({"devices": ["8"]}) == (
        False, "planned, but no device of this host: 8 (there are: 0, 1, 2, 3, 4, 5, 6, 7)",
    )  # fmt: skip
    (h100.root / "run/cdi/nvidia.yaml").unlink()
    ok, detail = checks.cdi({"devices": []})
    assert not ok
    assert "there is no CDI specification" in detail


def test_one_version(h100: GpuHost) -> None:
    rows = [f"{name} 1.20.0-1 installed" for name in PACKAGES]
    check = {"packages": list(PACKAGES)}
    h100.says("dpkg-query", "\n".join(rows))
    assert checks.one_version(check) == (True, "4 packages in version 1.20.0-1")
    h100.says("dpkg-query", "\n".join([*rows[:3], f"{PACKAGES[3]} 1.19.0-1 installed"]))
    ok, detail = checks.one_version(check)
    assert not ok
    assert "libnvidia-container1 1.19.0-1" in detail
    h100.says("dpkg-query", "\n".join([*rows[:3], f"dpkg-query: no packages found matching {PACKAGES[3]}"]))
    assert checks.one_version(check) == (False, "not installed: libnvidia-container1")
    # Removed, but its configuration is still there.
    h100.says("dpkg-query", "\n".join([*rows[:3], f"{PACKAGES[3]} 1.20.0-1 config-files"]))
    assert checks.one_version(check) == (False, "not installed: libnvidia-container1")


def test_one_version_of_rpm(h100: GpuHost) -> None:
    h100.says("rpm", "\n".join(f"{name} 1.20.0-1 installed" for name in PACKAGES[:3]))
    assert checks.one_version({"packages": list(PACKAGES)}) == (False, "not installed: libnvidia-container1")


def test_mig(h100: GpuHost) -> None:
    check = {"path": "/etc/redoubt/mig/config.yaml"}
    assert checks.mig(check) == (False, "nvidia-mig-parted is not installed")
    h100.says("nvidia-mig-parted", "Selected MIG configuration currently applied")
    assert checks.mig(check)[0]
    h100.says("nvidia-mig-parted", "Assertion failure", code=1)
    assert checks.mig(check) == (False, "Assertion failure")
