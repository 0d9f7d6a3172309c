"""The mock NVML, compiled and called as a program would."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.recipe_stub_nvidia import NEEDED, compile_nvml
from lab.report import QuietReport
from lab.stub_nvidia.tools import fabricmanager, views
from lab.tools import require
from tests.unit.stub_nvidia_support import DRIVER, fitted, state

VERSION_MISMATCH, GPU_IS_LOST, DRIVER_NOT_LOADED, NOT_SUPPORTED = 18, 15, 9, 3
#: Prints the code of nvmlInit and then of each call after it, with what it found; every run is a process of its own.
CALLER = """
import ctypes, json, sys
lib = ctypes.CDLL(sys.argv[1])
lib.nvmlErrorString.restype = ctypes.c_char_p
code = lib.nvmlInit_v2()
out = {"init": code, "error": lib.nvmlErrorString(code).decode(), "gpus": []}
count = ctypes.c_uint(0)
lib.nvmlDeviceGetCount_v2(ctypes.byref(count))

class Pci(ctypes.Structure):
    numbers = ("domain", "bus", "device", "id", "sub")
    _fields_ = [("legacy", ctypes.c_char * 16), *((n, ctypes.c_uint) for n in numbers), ("bus_id", ctypes.c_char * 32)]

class Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]

class Fabric(ctypes.Structure):
    _fields_ = [("cluster", ctypes.c_ubyte * 16), ("status", ctypes.c_uint), ("clique", ctypes.c_uint),
                ("state", ctypes.c_ubyte)]

def text(call, *words):
    buffer = ctypes.create_string_buffer(96)
    call(*words, buffer, 96)
    return buffer.value.decode()

def numbers(call, *words, n=1, kind=ctypes.c_uint):
    found = [kind(0) for _ in range(n)]
    code = call(*words, *[ctypes.byref(one) for one in found])
    return [code, *[one.value for one in found]]

out["driver"], out["nvml"] = text(lib.nvmlSystemGetDriverVersion), text(lib.nvmlSystemGetNVMLVersion)
out["cuda"] = numbers(lib.nvmlSystemGetCudaDriverVersion_v2)[1]
for index in range(count.value):
    handle = ctypes.c_void_p()
    code = lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    gpu = {"code": code}
    if code == 0:
        pci, memory, fabric, again = Pci(), Memory(), Fabric(), ctypes.c_void_p()
        lib.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(pci))
        lib.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        lib.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(fabric))
        gpu.update(name=text(lib.nvmlDeviceGetName, handle), uuid=text(lib.nvmlDeviceGetUUID, handle),
                   bus_id=pci.bus_id.decode(), legacy=pci.legacy.decode(), pci_id=hex(pci.id),
                   total=memory.total, free=memory.free, fabric=[fabric.status, fabric.state],
                   minor=numbers(lib.nvmlDeviceGetMinorNumber, handle),
                   mig=numbers(lib.nvmlDeviceGetMigMode, handle, n=2),
                   persistence=numbers(lib.nvmlDeviceGetPersistenceMode, handle)[1],
                   errors=numbers(lib.nvmlDeviceGetTotalEccErrors, handle, 1, 0, kind=ctypes.c_ulonglong),
                   rows=numbers(lib.nvmlDeviceGetRemappedRows, handle, n=4), migs=[])
        lib.nvmlDeviceGetHandleByUUID(gpu["uuid"].encode(), ctypes.byref(again))
        gpu["same_by_uuid"] = again.value == handle.value
        lib.nvmlDeviceGetHandleByPciBusId_v2(pci.bus_id, ctypes.byref(again))
        gpu["same_by_address"] = again.value == handle.value
        one = 0
        while lib.nvmlDeviceGetMigDeviceHandleByIndex(handle, one, ctypes.byref(again)) == 0:
            gpu["migs"].append([text(lib.nvmlDeviceGetName, again), text(lib.nvmlDeviceGetUUID, again),
                                numbers(lib.nvmlDeviceGetGpuInstanceId, again)[1]])
            one += 1
    out["gpus"].append(gpu)
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    require(NEEDED, QuietReport())
    compile_nvml(path, DRIVER)
    return path


def call(library: Path, root: Path) -> dict[str, Any]:
    line = [sys.executable, "-c", CALLER, str(library)]
    environment = {"STUB_NVIDIA_ROOT": str(root)}
    found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout)
    return dict(found)


def test_it_shows_what_the_description_says(library: Path, tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM", fabricmanager=DRIVER)
    fabricmanager.main([], host, stay=False)
    found = call(library, tmp_path)
    assert (found["init"], found["driver"], found["nvml"], found["cuda"]) == (0, DRIVER, f"13.{DRIVER}", 13000)
    assert len(found["gpus"]) == 8
    first = found["gpus"][0]
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert (first["bus_id"], first["legacy"]) == ("00000000:18:00.0", "0000:18:00.0")
    assert first["pci_id"] == "0x233010de"
    assert first["total"] == first["free"] == 81559 * 1024 * 1024
    assert first["fabric"] == [0, 3]
    assert first["mig"] == [0, 0, 0]
    assert all(gpu["same_by_uuid"] and gpu["same_by_address"] for gpu in found["gpus"])
    assert [gpu["minor"][1] for gpu in found["gpus"]] == list(range(8))


def test_a_fabric_without_its_manager_is_in_progress(library: Path, tmp_path: Path) -> None:
    views.refresh(fitted(tmp_path, "8xH100-SXM"))
    assert call(library, tmp_path)["gpus"][0]["fabric"][1] == 2


def test_it_shows_mig_devices(library: Path, tmp_path: Path) -> None:
    views.refresh(fitted(tmp_path, "1xA100-MIG"))
    gpu = call(library, tmp_path)["gpus"][0]
    assert gpu["mig"] == [0, 1, 1]
    assert [one[2] for one in gpu["migs"]] == [2, 3, 9, 10]
    assert gpu["migs"][0][:2] == ["NVIDIA A100 80GB PCIe MIG 3g.40gb", "MIG-815d2802-8272-83e0-ad84-173581569969"]


def test_a_gpu_that_knows_no_mig_says_so(library: Path, tmp_path: Path) -> None:
    views.refresh(fitted(tmp_path, "2xL40S-PCIe"))
    found = call(library, tmp_path)["gpus"][0]
    assert found["mig"][0] == NOT_SUPPORTED
    assert found["fabric"][1] == 0


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"faults": {"loaded_driver": "580.95.05"}}, VERSION_MISMATCH, "Driver/library version mismatch"),
        ({"loaded_driver": None}, DRIVER_NOT_LOADED, "Driver Not Loaded"),
    ],
)
def test_it_does_not_come_up(library: Path, tmp_path: Path, changes: dict[str, Any], code: int, words: str) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    state(host, **changes)
    views.refresh(host)
    found = call(library, tmp_path)
    assert (found["init"], found["error"], found["gpus"]) == (code, words, [])


def test_faults_of_single_gpus(library: Path, tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    faults = {"lost_gpus": ["0000:18:00.0"], "missing_gpus": ["0000:db:00.0"], "ecc_uncorrected": {"0000:2a:00.0": 5},
              "row_remap_failure": ["0000:3a:00.0"]}  # fmt: skip
    state(host, faults=faults)
    views.refresh(host)
    gpus = call(library, tmp_path)["gpus"]
    assert [gpu["code"] for gpu in gpus] == [GPU_IS_LOST, 0, 0, 0, 0, 0, 0]
    assert gpus[1]["errors"] == [0, 5]
    assert gpus[2]["rows"] == [0, 0, 0, 0, 1]


def test_a_container_sees_the_gpus_whose_nodes_it_has(library: Path, tmp_path: Path) -> None:
    host = fitted(tmp_path, "8xH100-SXM")
    views.refresh(host)
    for number in range(7):
        host.path(f"/dev/nvidia{number}").unlink()
    assert [gpu["uuid"] for gpu in call(library, tmp_path)["gpus"]] == [host.gpus()[7].uuid]


def test_it_answers_nothing_before_it_is_initialised(library: Path) -> None:
    assert ctypes.CDLL(str(library)).nvmlDeviceGetCount_v2(None) == 1
