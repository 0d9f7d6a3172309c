"""Whether the GPUs can be used: each fault is named with its remedy, and only the fabric is waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import gpu_checks
from ansible.module_utils.gpu.ready import reboot_reasons, unbuilt, verdicts

from filter_plugins.doctor import doctor_inside_checks
from library.gpu_ready import settling
from tests.unit.gpu_support import OTHER, SYSTEMD, VERSION, GpuHost, systemd


@pytest.fixture
def h100(tmp_path: Path) -> GpuHost:
    return GpuHost(tmp_path, "8xH100-SXM").with_driver()


def expected(host: GpuHost, **changes: Any) -> dict[str, Any]:
    found = {"driver": VERSION, "flavour": "open", "gpus": [gpu["address"] for gpu in host.description["gpus"]]}
    return {**found, "fabric": bool(host.description["fabric"]), **changes}


def bad(host: GpuHost, **changes: Any) -> dict[str, str]:
    """What is not good, as aspect -> detail and remedy."""
    rows = verdicts(host.facts(), expected(host, **changes))
    assert all(row.remedy for row in rows if not row.ok)
    return {row.aspect: f"{row.detail} {row.remedy}" for row in rows if not row.ok}


@pytest.mark.parametrize("name", ["8xH100-SXM", "8xB200", "2xL40S-PCIe", "1xA100-MIG"])
def test_good_hosts_are_good(tmp_path: Path, name: str) -> None:
    host = GpuHost(tmp_path, name).with_driver()
    assert bad(host) == {}
    aspects = [row.aspect for row in verdicts(host.facts(), expected(host))]
    assert ("fabric" in aspects) is bool(host.description["fabric"])


def test_module_and_library_of_two_versions(h100: GpuHost) -> None:
    h100.file(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{OTHER.replace('580', '595')}", "")
    h100.fails("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 595.95", 18)
    found = bad(h100)
    assert "module and library are of two versions" in found["driver"]
    assert "Restart the host" in found["driver"]


def test_loaded_is_not_what_is_planned(h100: GpuHost) -> None:
    found = bad(h100, driver="595.71.05")
    assert f"driver {VERSION} is loaded, 595.71.05 is wanted" in found["reboot"]
    assert "planned 595.71.05" in found["driver"]
    assert reboot_reasons(h100.facts(), expected(h100)) == []
    assert "the open module is loaded" in reboot_reasons(h100.facts(), expected(h100, flavour="proprietary"))[0]


def test_installed_but_another_loaded(h100: GpuHost) -> None:
    h100.says("modinfo", "version:        595.71.05\nlicense:        Dual MIT/GPL")
    assert f"driver {VERSION} is loaded, 595.71.05 is installed" in bad(h100)["reboot"]


def test_no_module_for_this_kernel(tmp_path: Path) -> None:
    assert "no module for the running kernel" in bad(GpuHost(tmp_path, "2xL40S-PCIe"))["driver"]


def test_kernel_that_comes_next(h100: GpuHost) -> None:
    h100.file("proc/sys/kernel/osrelease", "6.8.0-1-generic\n")
    assert reboot_reasons(h100.facts(), expected(h100, kernel="6.8.0-1-generic")) == []
    wanted = expected(h100, kernel="6.8.0-2-generic")
    assert reboot_reasons(h100.facts(), wanted) == [
        "kernel 6.8.0-1-generic runs, 6.8.0-2-generic is wanted (nvidia_driver_kernel)"
    ]
    assert unbuilt(h100.facts(), wanted) == ""  # no DKMS: a module that came signed
    base = f"var/lib/dkms/nvidia/{VERSION}"
    h100.file(f"{base}/source", "")
    assert "only for no kernel" in unbuilt(h100.facts(), wanted)
    for number in ("1", "2"):
        h100.file(f"{base}/6.8.0-{number}-generic/x86_64/module/nvidia.ko", "")
    assert "only for 6.8.0-1-generic built, 6.8.0-2-generic built" in unbuilt(h100.facts(), wanted)
    assert "'dkms autoinstall -k 6.8.0-2-generic'" in unbuilt(h100.facts(), wanted)
    assert unbuilt(h100.facts(), expected(h100)) == ""
    link = h100.root / "var/lib/dkms/nvidia/kernel-6.8.0-2-generic-x86_64"
    link.symlink_to(f"{VERSION}/6.8.0-2-generic/x86_64")
    assert unbuilt(h100.facts(), wanted) == ""


def test_module_not_loaded(h100: GpuHost) -> None:
    h100.tree(None)
    assert "modprobe nvidia" in bad(h100)["driver"]


def test_nouveau(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, "2xL40S-PCIe")
    host.description["nouveau"] = True
    host.tree(None)
    found = bad(host)
    assert found["nouveau"].startswith("nouveau is loaded")
    assert "nouveau is loaded and holds the GPUs" in found["reboot"]


def test_missing_gpu(h100: GpuHost) -> None:
    last = h100.description["gpus"][7]["address"]
    del h100.smi["rows"][7]
    found = bad(h100)["gpus"]
    assert f"7 of 8 GPUs can be used, not {last}" in found


def test_gpu_that_left_the_bus(h100: GpuHost) -> None:
    gone = h100.description["gpus"].pop()["address"]
    h100.tree(VERSION)
    facts = h100.facts()
    facts["gpus"] = [row for row in facts["gpus"] if row["address"] != gone]
    facts["smi"]["off_bus"] = [gone]
    row = next(row for row in verdicts(facts, expected(h100)) if row.aspect == "gpus")
    assert (row.ok, row.detail) == (False, f"7 of 8 GPUs can be used, not {gone}")


def test_no_gpu_is_not_good(h100: GpuHost) -> None:
    assert "0 of 0 GPUs" in bad(h100, gpus=[])["gpus"]


def test_nvidia_smi_is_not_installed(h100: GpuHost) -> None:
    (h100.bin / "nvidia-smi").unlink()
    assert "nvidia_driver_extra_packages" in bad(h100)["gpus"]


def progress(host: GpuHost) -> None:
    for row in host.smi["rows"]:
        row["fabric.state"], row["fabric.status"] = "In Progress", "N/A"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (progress, "the fabric is In Progress"),
        (lambda host: host.says("nv-fabricmanager", f"Fabric Manager version is : {OTHER}"), "error 802"),
        (lambda host: host.says("systemctl", systemd({**SYSTEMD, "fabricmanager": "failed"})), "is failed"),
        (lambda host: host.says("systemctl", systemd({**SYSTEMD, "fabricmanager": None})), "is not installed"),
    ],
)
def test_fabric(h100: GpuHost, spoil: Callable[[GpuHost], None], words: str) -> None:
    spoil(h100)
    found = bad(h100)
    assert words in found["fabric"]
    assert set(found) == {"fabric"}
    # Without a fabric manager on the host only what the GPUs themselves say counts.
    assert ("fabric" in bad(h100, fabric=False)) is (spoil is progress)


def test_fabric_that_is_managed_elsewhere(h100: GpuHost) -> None:
    """Switch trays (GB200) and hypervisors have the fabric manager; the GPUs say whether it is done."""
    h100.says("systemctl", systemd({**SYSTEMD, "fabricmanager": None}))
    rows = {row.aspect: row for row in verdicts(h100.facts(), expected(h100, fabric=False))}
    assert (rows["fabric"].ok, rows["fabric"].detail) == (True, "8 GPUs Completed/Success, managed outside this host")
    progress(h100)
    assert "switch trays" in bad(h100, fabric=False)["fabric"]
    assert settling(h100.facts(), verdicts(h100.facts(), expected(h100, fabric=False)), False)


def test_persistence(h100: GpuHost) -> None:
    h100.says("systemctl", systemd({**SYSTEMD, "persistenced": "inactive"}))
    assert "systemctl enable --now nvidia-persistenced" in bad(h100)["persistence"]


def test_fabric_that_may_complete_is_worth_another_look(h100: GpuHost) -> None:
    assert not settling(h100.facts(), verdicts(h100.facts(), expected(h100)), True)
    progress(h100)
    assert settling(h100.facts(), verdicts(h100.facts(), expected(h100)), True)


@pytest.mark.parametrize("unit", ["fabricmanager", "persistenced"])
def test_what_does_not_mend_itself_is_not(h100: GpuHost, unit: str) -> None:
    progress(h100)
    h100.says("systemctl", systemd({**SYSTEMD, unit: "failed"}))
    assert not settling(h100.facts(), verdicts(h100.facts(), expected(h100)), True)


def test_doctor_reads_once_and_answers_for_each_aspect(h100: GpuHost, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"engines": [], "weights": [], "driver": expected(h100)}
    settings = {"deep": False, "min_free_percent": 5, "secret_patterns": []}
    checks = [check for check in doctor_inside_checks(plan, settings) if check["kind"] == gpu_checks.KIND]
    readings = []
    progress(h100)

    def read(_: object) -> dict[str, Any]:
        readings.append(1)
        return h100.facts()

    monkeypatch.setattr(gpu_checks, "gather", read)
    answers = {answer["id"]: answer for check in checks for answer in gpu_checks.gpu_answers(check)}
    assert readings == [1]
    assert set(answers) == {f"gpu.{name}" for name in ("driver", "gpus", "fabric", "reboot", "nouveau", "persistence")}
    assert [name for name, answer in answers.items() if not answer["ok"]] == ["gpu.fabric"]
    assert answers["gpu.fabric"]["remedy"]
    assert doctor_inside_checks({**plan, "driver": None}, settings)[0]["kind"] != gpu_checks.KIND
