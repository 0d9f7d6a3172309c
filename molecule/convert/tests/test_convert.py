"""Real conversions of a real model: what came out is right, is used, and nothing half-made is ever there.

The tests run in this order; the last ones seed faults.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from planner import plan
from tests.support.plays import Play, Run, run_play
from tests.unit.test_conversion_plan import SMALLEST, entry, site

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
MODELS = "/srv/redoubt/models"
RESULTS = ("smol-st", "smol-q8", "smol-onnx", "smol-fp8")
ASK = """
import torch, transformers as t
tok, m = t.AutoTokenizer.from_pretrained('/m'), t.AutoModelForCausalLM.from_pretrained('/m', dtype=torch.bfloat16)
ids = tok('The capital of France is', return_tensors='pt')
print('ANSWER', tok.decode(m.generate(**ids, max_new_tokens=2, do_sample=False)[0]))
"""
ASK_ONNX = """
import onnx, onnxruntime, shutil, transformers as t
shutil.copytree('/m', '/tmp/m')  # onnx, unlike onnxruntime, reads no weights that have a second name
onnx.checker.check_model('/tmp/m/model.onnx')
tok = t.AutoTokenizer.from_pretrained('/m')
ids = {k: v.astype('int64') for k, v in tok('The capital of France is', return_tensors='np').items()}
session = onnxruntime.InferenceSession('/m/model.onnx')
logits = session.run(None, {x.name: ids[x.name] for x in session.get_inputs()})[0]
print('ANSWER', tok.decode([int(logits[0, -1].argmax())]))
"""
# The names and shapes of a GGUF file's tensors.
LIST = """
import gguf, glob
for x in sorted(gguf.GGUFReader(glob.glob('/m/*.gguf')[0]).tensors, key=lambda x: x.name):
    print('TENSOR', x.name, [int(n) for n in x.shape])
"""


def locked(name: str) -> dict[str, Any]:
    """Return the lock entry that was written for the operator."""
    document: dict[str, Any] = yaml.safe_load((FOLDER / "lock" / f"{name}.yml").read_text())["redoubt_model_locks"]
    return dict(document[name])


def folder(name: str) -> str:
    return f"{MODELS}/{name}/{locked(name)['revision'][:12]}"


def manifest(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.file(f"{folder(name)}/conversion.json").content_string)
    return found


def in_image(host: Host, code: str, model: str) -> str:
    """Run Python in the image that converts, without a network, on a model's folder."""
    words = "docker run --rm --network none -v %s:/m:ro --entrypoint python3.11 redoubt.lab/convert:1 -c %s"
    return str(host.check_output(words, model, code))


def visible(host: Host) -> list[str]:
    """Return every published file but for the input's, and all that is left of work."""
    places = f"{MODELS}/smol-* {MODELS}/.converting/* {MODELS}/.incoming/*"
    return sorted(host.run(f"find {places} 2>/dev/null").stdout.split())


def containers(host: Host) -> list[str]:
    return str(host.check_output("docker ps --all --format '{{.Names}}'")).split()


@pytest.mark.parametrize("name", RESULTS)
def test_result_has_a_manifest_of_input_image_and_output(host: Host, name: str) -> None:
    document = manifest(host, name)
    assert document["image"]["config_digest"] == (FOLDER / "image").read_text()
    assert document["tools"]["python"].startswith("3.11")
    assert len(document["tools"]) > 3
    for file in document["outputs"]:
        assert host.file(f"{folder(name)}/{file['path']}").sha256sum == file["sha256"]
    for file in document["inputs"][0]["files"]:
        source = document["inputs"][0]
        place = f"{MODELS}/{source['name']}/{source['revision'][:12]}/{file['path']}"
        assert host.file(place).sha256sum == file["sha256"]
    assert {file["path"] for file in locked(name)["files"]} == {
        *(file["path"] for file in document["outputs"]),
        "conversion.json",
    }


def test_results_are_readable_by_all_and_writable_by_nobody(host: Host) -> None:
    for name in RESULTS:
        listed = host.check_output(f"find {folder(name)} -type f -printf '%m %u\\n' | sort -u")
        assert listed == "444 root"


@pytest.mark.parametrize("name", RESULTS)
def test_result_is_a_model_of_the_lock_like_any_other(name: str) -> None:
    run = run_play("served.yml", result=name)
    assert run.status == 0
    assert run.changed == 0


def test_safetensors_out_of_gguf_are_those_that_the_lab_made_and_complete_a_prompt(host: Host) -> None:
    lab = host.ansible.get_variables()["cache"]
    lock = yaml.safe_load((Path(lab) / "lab/lock.yml").read_text())["redoubt_model_locks"]["smollm2-135m-instruct"]
    theirs = {file["path"]: file["sha256"] for file in lock["files"]}
    ours = {file["path"]: file["sha256"] for file in locked("smol-st")["files"]}
    assert ours["model.safetensors"] == theirs["model.safetensors"]
    assert "Paris" in in_image(host, ASK, folder("smol-st"))


def test_round_trip_keeps_every_tensors_name_and_shape(host: Host) -> None:
    first = in_image(host, LIST, "/media/redoubt/models/smollm2-135m-instruct-gguf").splitlines()
    last = in_image(host, LIST, folder("smol-q8")).splitlines()
    assert first == last
    assert len(first) == 272


def test_onnx_predicts_the_next_token(host: Host) -> None:
    assert "Paris" in in_image(host, ASK_ONNX, folder("smol-onnx"))


def test_fp8_weights_are_of_eight_bits(host: Host) -> None:
    code = """
from safetensors import safe_open
with safe_open('/m/model.safetensors', 'pt') as f:
    print('TYPE', f.get_tensor('model.layers.0.mlp.up_proj.weight').dtype)
"""
    assert "float8_e4m3fn" in in_image(host, code, folder("smol-fp8"))
    config = json.loads(host.file(f"{folder('smol-fp8')}/config.json").content_string)
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_nothing_is_left_of_the_work(host: Host) -> None:
    assert containers(host) == []
    assert not [path for path in visible(host) if "/." in path]


def test_every_kind_of_job_is_understood_by_compose(play: Play) -> None:
    jobs = [plan(site(entry(kind)))["conversions"][0] for kind in SMALLEST]
    assert play("render.yml", jobs=jobs).status == 0
    rendered = json.loads((FOLDER / "rendered.json").read_text())
    assert set(rendered) == set(SMALLEST)
    for job in jobs:
        service = rendered[job["kind"]]["services"]["job"]
        assert service["network_mode"] == "none"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == "65534:65534"
        assert service["command"] == job["command"]
        written = {mount["target"] for mount in service["volumes"] if not mount.get("read_only")}
        assert written == {"/output", "/scratch"}
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        names = [name for device in devices for name in device["device_ids"]]
        assert names == [f"nvidia.com/gpu={gpu}" for gpu in job["devices"]]


def test_only_the_named_conversion_is_looked_at_and_a_wrong_name_is_told(play: Play) -> None:
    run = play(convert_only="smol-q9")
    assert run.status != 0
    assert "convert_only = smol-q9: this host has no such conversion" in run.words


def test_failed_job_publishes_nothing_and_names_its_log(host: Host, play: Play) -> None:
    before = visible(host)
    run = play(convert_only="smol-st", st_options={"file": "nobody.gguf"})
    assert run.status != 0
    assert "conversion smol-st: the job ended with 1" in run.words
    assert "the input must have one file nobody.gguf, and has none" in run.words
    log = f"/var/log/redoubt/conversions/{run.words.split('/var/log/redoubt/conversions/')[1].split(',')[0]}"
    assert host.file(log).size > 0
    assert visible(host) == before
    assert containers(host) == []


def test_killed_run_leaves_nothing_visible_and_is_made_up_for(host: Host) -> None:
    before = visible(host)
    found: list[Run] = []
    wishes: dict[str, Any] = {"convert_only": "smol-fp8", "fp8_options": {"seed": 1}}
    thread = threading.Thread(target=lambda: found.append(run_play(**wishes)))
    thread.start()
    deadline = time.monotonic() + 200
    while "redoubt-convert-smol-fp8" not in containers(host):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    running = json.loads(host.check_output("docker inspect redoubt-convert-smol-fp8"))[0]
    # The first line of the lock is the process that holds it.
    host.check_output("kill -9 $(head -n 1 /var/lib/redoubt/conversions/.lock)")
    thread.join()
    assert found[0].status != 0
    assert running["HostConfig"]["NetworkMode"] == "none"
    assert running["HostConfig"]["Memory"] == 6 * 1024**3
    assert running["Config"]["User"] == "65534:65534"
    assert running["Image"] == (FOLDER / "image").read_text()
    assert [path for path in visible(host) if "/." not in path] == before
    again = run_play(**wishes)
    assert again.status == 0
    assert "smol-fp8" in again.text
    assert manifest(host, "smol-fp8")["command"][-1] == "1"
    assert containers(host) == []
    assert not [path for path in visible(host) if "/." in path]
