"""What Prometheus is told about the GPUs by the hosts themselves: true, complete, and never half a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from filter_plugins.doctor import doctor_inside_checks
from module_utils.gpu import figures
from module_utils.gpu.figures import EXPECTED, FABRIC, LOOKED, MISMATCH, VISIBLE
from module_utils.gpu.host import Host
from planner import plan
from tests.support.plan_documents import document, host, images, model
from tests.unit.gpu_support import OTHER, GpuHost

REPO = Path(__file__).parents[2]
NOW = 1_700_000_000.0
GOOD = {EXPECTED: 8, VISIBLE: 8, FABRIC: 1, MISMATCH: 0, LOOKED: NOW}


@pytest.fixture
def h100(tmp_path: Path) -> GpuHost:
    return GpuHost(tmp_path, "8xH100-SXM").with_driver()


def shown(gpus: GpuHost, expected: int = 8) -> dict[str, float]:
    """The figures of a host, through the text that Prometheus reads."""
    return figures.parse(figures.text(figures.figures(gpus.facts(), expected, NOW)))


def test_a_good_host(h100: GpuHost) -> None:
    assert shown(h100) == GOOD
    assert figures.faults(shown(h100), 8, NOW) == []


def test_what_is_missing_is_missed_whatever_is_visible(h100: GpuHost) -> None:
    h100.description["gpus"].pop()
    h100.tree("580.126.20")
    del h100.smi["rows"][7]
    assert shown(h100) == {**GOOD, VISIBLE: 7}
    assert figures.faults(shown(h100), 8, NOW) == ["7 of 8 GPUs can be used"]


def test_libraries_of_another_version(h100: GpuHost) -> None:
    h100.file(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{OTHER.replace('580', '595')}", "")
    h100.fails("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 595.95", 18)
    assert shown(h100) == {EXPECTED: 8, VISIBLE: 0, MISMATCH: 1, LOOKED: NOW}
    assert "the driver's libraries are of another version" in figures.faults(shown(h100), 8, NOW)[1]


def test_one_gpu_outside_the_fabric(h100: GpuHost) -> None:
    h100.smi["rows"][3]["fabric.state"] = "In Progress"
    assert shown(h100) == {**GOOD, FABRIC: 0}
    assert figures.faults(shown(h100), 8, NOW) == ["the NVLink fabric is not ready"]


def test_what_does_not_apply_is_left_out(tmp_path: Path) -> None:
    gpus = GpuHost(tmp_path, "2xL40S-PCIe")
    assert shown(gpus, 2) == {EXPECTED: 2, VISIBLE: 0, LOOKED: NOW}  # no driver at all
    gpus.with_driver()
    assert shown(gpus, 2) == {EXPECTED: 2, VISIBLE: 2, MISMATCH: 0, LOOKED: NOW}


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("up 1\n", "has no redoubt_gpu_* figures"),
        (figures.text(GOOD | {LOOKED: NOW - 301}), "301 s old: nobody looks"),
        (figures.text(GOOD | {EXPECTED: 7, VISIBLE: 7}), "7 GPUs are expected there, the plan says 8"),
    ],
)
def test_the_doctor_doubts_figures(page: str, words: str) -> None:
    assert words in figures.faults(figures.parse(page), 8, NOW)[0]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "gpu.prom"
    figures.write(str(target), "old")

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        figures.write(str(target), "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.prom"]


def test_the_program_stands_on_the_files_that_the_role_copies(h100: GpuHost, tmp_path: Path) -> None:
    names = yaml.safe_load((REPO / "roles/node_exporter/vars/main.yml").read_text())["__node_exporter_gpu_modules"]
    package, target = tmp_path / "library/gpu", tmp_path / "gpu.prom"
    package.mkdir(parents=True)
    for name in names:
        shutil.copy(REPO / f"module_utils/gpu/{name}.py", package)
    command = [sys.executable, "-B", "-m", "gpu.figures", "--expected", "4", "--file", str(target)]
    done = subprocess.run(command, env={"PYTHONPATH": str(package.parent)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert figures.parse(target.read_text())[EXPECTED] == 4
    assert target.stat().st_mode & 0o777 == 0o644
    figures.main(["--expected", "8", "--file", str(target)], Host(str(h100.root), str(h100.bin)))
    h100.facts()  # writes what the stub nvidia-smi says
    figures.main(["--expected", "8", "--file", str(target)], Host(str(h100.root), str(h100.bin)))
    assert figures.parse(target.read_text())[VISIBLE] == 8


def made(gpus: object = None, driver: dict[str, Any] | None = None, seen: int | None = 8) -> dict[str, Any]:
    described = host(model(gpus=1), kinds=("inference",), gpus=gpus)
    return plan(document({"h1": described}, images=images(), facts={"gpus": seen}, driver=driver))


def test_what_is_expected_comes_from_the_plan() -> None:
    seven = {"driver": "580.126.20", "gpus": [f"0000:0{n}:00.0" for n in range(7)], "fabric": True, "flavour": "open"}
    assert made()["gpus_expected"] == 8
    assert made(driver=seven)["gpus_expected"] == 7  # one of the eight belongs to another driver
    assert made(gpus=8, driver=seven)["gpus_expected"] == 8  # the inventory's word is the last
    assert made(gpus=8, driver=seven)["driver"]["count"] == 8
    assert made(gpus=["GPU-a", "GPU-b"])["gpus_expected"] == 2
    assert plan(document(facts={"gpus": 0}))["gpus_expected"] == 0


def test_the_doctor_asks_only_where_gpus_are_expected() -> None:
    settings = {"deep": False, "min_free_percent": 5, "secret_patterns": []}
    empty = {"engines": [], "weights": [], "exporter": {"address": "10.0.0.1", "port": 9100}}
    (check,) = [c for c in doctor_inside_checks({**empty, "gpus_expected": 8}, settings) if c["kind"] == "gpu_figures"]
    assert (check["url"], check["expected"]) == ("http://10.0.0.1:9100/metrics", 8)
    assert check["remedy"]
    assert not [c for c in doctor_inside_checks({**empty, "gpus_expected": 0}, settings) if c["kind"] == "gpu_figures"]
