"""A machine with NVIDIA GPUs against what we say of it. Needs Python 3.11, pytest and this repository, nothing else.

Changes nothing, and asks no network. Where there is no GPU all of it is skipped.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from module_utils.gpu import smi
from module_utils.gpu.cdi import device_names
from module_utils.gpu.host import Host
from module_utils.gpu.pci import count_gpus
from module_utils.gpu.toolkit import parse_cdi
from module_utils.gpu_checks import gpu_answers
from tests.gpu.nvml import MISMATCH, NOT_LOADED, Nvml

# In a container the bus may show none of the GPUs, and the nodes only the container's.
if not count_gpus(Host()) and not glob.glob("/dev/nvidia[0-9]*"):
    pytest.skip("no NVIDIA GPU", allow_module_level=True)

Rows = dict[str, dict[str, Any]]
# Whatever nvidia-smi tells, and of the table of ids what the library knows too.
FIELDS = (*smi.gpu_row({}, []), "device", "generation", "mig_capable")
NOWHERE = "ffff:ff:1f.0"


def usable(facts: dict[str, Any]) -> Rows:
    return {gpu["address"]: gpu for gpu in facts["gpus"] if gpu["visible"] and not gpu["lost"]}


def expected(nvml: Nvml, facts: dict[str, Any], witness: Rows, **changes: Any) -> dict[str, Any]:
    flavour = facts["driver"]["loaded_flavour"] or "open"
    fabric = any(row["fabric_state"] for row in witness.values())
    plan = {"driver": nvml.driver(), "flavour": flavour, "gpus": list(witness), "fabric": fabric}
    return {**plan, **changes}


def model(product: str) -> str:
    """H100 of "NVIDIA H100 80GB HBM3", A100 of "NVIDIA A100-SXM4-80GB"."""
    return next(word for word in product.replace("-", " ").split() if word not in ("NVIDIA", "Tesla"))


def answers(**plan: Any) -> dict[str, dict[str, Any]]:
    """The doctor's answers by aspect."""
    return {row["id"].removeprefix("gpu."): row for row in gpu_answers({"id": "gpu", "expected": plan})}


def test_the_library_and_nvidia_smi_start_or_fail_alike(facts: dict[str, Any], nvml: Nvml) -> None:
    codes = {0: None, NOT_LOADED: smi.NO_DRIVER, MISMATCH: smi.MISMATCH}
    assert facts["smi"]["installed"]
    assert facts["smi"]["error"] == codes.get(nvml.code, smi.FAILED), facts["smi"]["text"]


def test_the_same_gpus_can_be_used(facts: dict[str, Any], witness: Rows) -> None:
    if not facts["pci"] or not facts["gpus"]:
        pytest.skip("no PCI bus to look at here: this is a container")
    assert sorted(usable(facts)) == sorted(witness)
    assert facts["smi"]["off_bus"] == []


@pytest.mark.parametrize("field", FIELDS)
def test_field(field: str, facts: dict[str, Any], witness: Rows) -> None:
    ours = {address: gpu[field] for address, gpu in usable(facts).items() if address in witness}
    if field == "generation":  # the library does not say whether there is a Grace beside it
        ours = {address: value and value.rpartition("-")[2] for address, value in ours.items()}
    if not ours:
        pytest.skip("no GPU in common: see test_the_same_gpus_can_be_used")
    assert ours == {address: witness[address][field] for address in ours}


def test_memory_and_name_of_the_product(facts: dict[str, Any], witness: Rows) -> None:
    """What the plan goes by before there is a driver: the table's row is the product that is here."""
    from module_utils.gpu.ids import identify  # noqa: PLC0415 - only here

    for address, gpu in usable(facts).items():
        known = identify(gpu["device"].partition(":")[2], gpu["subsystem"])
        assert known.product, f"{gpu['device']} ({gpu['name']}) is not in module_utils/gpu/ids.py"
        assert model(known.product) == model(str(witness[address]["name"]))
        if known.memory_mib:
            assert abs(known.memory_mib - witness[address]["memory_mib"]) <= known.memory_mib // 50


def test_driver(facts: dict[str, Any], nvml: Nvml, witness: Rows) -> None:
    assert witness
    version = nvml.driver()
    found = facts["driver"]
    assert (facts["smi"]["driver"], found["loaded"]) == (version, version)
    assert found["library"] in (None, version)  # None: in a container it may lie elsewhere
    assert found["kernel"] == os.uname().release
    assert not found["nouveau"]
    assert facts["reboot"]["driver"] is (found["installed"] not in (None, version))


def test_doctor_finds_it_good(facts: dict[str, Any], nvml: Nvml, witness: Rows) -> None:
    told = answers(**expected(nvml, facts, witness))
    driver, service = facts["driver"], facts["services"]["persistenced"]
    assert told["driver"]["ok"] is (driver["installed"] == nvml.driver()), told["driver"]["detail"]
    assert told["reboot"]["ok"] is not facts["reboot"]["driver"]
    persistent = service is not None and service["active"] == "active"
    assert told["persistence"]["ok"] is (persistent and all(row["persistence"] for row in witness.values()))
    if facts["gpus"]:
        assert told["gpus"]["ok"], told["gpus"]["detail"]
    if "fabric" in told and facts["fabric_manager"]:
        complete = all(
            (row["fabric_state"], row["fabric_status"]) == ("Completed", "Success") for row in witness.values()
        )
        assert told["fabric"]["ok"] is complete, told["fabric"]["detail"]


def test_doctor_finds_what_is_missing(facts: dict[str, Any], nvml: Nvml, witness: Rows) -> None:
    told = answers(**expected(nvml, facts, witness, gpus=[*witness, NOWHERE], driver="1.2.3"))
    assert not told["gpus"]["ok"]
    assert NOWHERE in told["gpus"]["detail"]
    assert not told["driver"]["ok"]
    assert "1.2.3" in told["reboot"]["detail"]


def test_cdi_names_these_gpus(facts: dict[str, Any], witness: Rows, tmp_path: Path) -> None:
    """A specification that is made now, which changes nothing on the machine, read by our parser."""
    tool = shutil.which("nvidia-ctk")
    if tool is None:
        pytest.skip("nvidia-ctk is not installed")
    target = tmp_path / "nvidia.yaml"
    done = subprocess.run(
        [tool, "cdi", "generate", f"--output={target}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    spec = parse_cdi(target.read_text(encoding="utf-8"))
    assert spec is not None
    assert spec["kind"] == "nvidia.com/gpu"
    assert set(device_names(list(usable(facts).values()))) <= set(spec["devices"])
    assert {name for name in spec["devices"] if name.startswith(("GPU-", "MIG-"))} <= {
        uuid for row in witness.values() for uuid in (row["uuid"], *(one["uuid"] for one in row["mig_devices"]))
    }
    assert spec["driver"] == facts["driver"]["loaded"]


def test_standing_cdi_specifications(facts: dict[str, Any], witness: Rows) -> None:
    """What stands in /etc/cdi and /run/cdi is told as `nvidia-ctk cdi list` tells it."""
    tool = shutil.which("nvidia-ctk")
    specs = facts["toolkit"]["cdi"]
    if tool is None or not specs:
        pytest.skip("nvidia-ctk is not installed" if tool is None else "no CDI specification stands here")
    listed = subprocess.run([tool, "cdi", "list"], capture_output=True, text=True, timeout=60, check=True).stdout
    names = {f"{spec['kind']}={name}" for spec in specs for name in spec["devices"]}
    assert names == {line.strip() for line in listed.splitlines() if "=" in line}
    assert {spec["stale"] for spec in specs} <= {False, None}
    assert witness


LOAD = """
import json, sys, torch
from vllm import LLM
before = torch.cuda.mem_get_info()[0]
LLM(model=sys.argv[1], gpu_memory_utilization=float(sys.argv[2]), enforce_eager=True, max_model_len=1024)
free, total = torch.cuda.mem_get_info()
print(json.dumps({"took": before - free, "total": total}))
"""


def test_a_loaded_model_takes_what_is_counted(facts: dict[str, Any], witness: Rows) -> None:
    """Weights as the plan counts them (bytes of the files), and the memory that the facts give a GPU."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not importable by this Python")
    model = os.environ.get("REDOUBT_GPU_MODEL")
    if not model:
        pytest.skip("REDOUBT_GPU_MODEL names no folder of a model")
    share = 0.5
    weights = sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))
    command = [sys.executable, "-c", LOAD, model, str(share)]
    quiet = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    first = min(witness.values(), key=lambda row: int(row["index"]))
    # CUDA keeps a little of what the driver counts for itself.
    assert 0.97 <= told["total"] / (first["memory_mib"] << 20) <= 1
    assert weights < told["took"] <= told["total"] * (share + 0.05)
    assert facts["gpus"]
