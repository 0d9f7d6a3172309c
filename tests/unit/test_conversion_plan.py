"""From redoubt_conversions to jobs: what may be written, what comes of it, and what is refused with its fix."""

from __future__ import annotations

from typing import Any

import pytest

from filter_plugins.conversions import conversion_images, conversion_weights, conversions_chosen
from planner import evaluate, plan
from planner.conversions import kinds
from tests.support.plan_documents import REVISION, document, host, images, lock, model

IMAGES = ("transformers", "llama_cpp", "optimum", "llm_compressor", "tensorrt_llm")
# A smallest entry of each kind, and the command that comes of it.
SMALLEST: dict[str, tuple[dict[str, Any], list[str]]] = {
    "safetensors": ({"from": "old"}, ["/programs/to_safetensors.py", "--dtype", "bfloat16"]),
    "gguf": ({}, ["/programs/to_gguf.py", "--name", "made", "--type", "auto"]),
    "onnx": (
        {},
        ["/programs/to_onnx.py", "--exporter", "optimum", "--opset", "20", "--dtype", "float32"],
    ),
    "fp8": (
        {"gpus": []},
        [
            *("/programs/quantize.py", "--method", "fp8", "--scheme", "FP8_DYNAMIC", "--ignore", "lm_head"),
            *("--seed", "0"),
        ],
    ),
    "awq": (
        {"gpus": [1], "options": {"calibration": "texts", "samples": 64}},
        [
            *("/programs/quantize.py", "--method", "awq", "--calibrate", "--scheme", "W4A16_ASYM"),
            *("--ignore", "lm_head", "--samples", "64", "--length", "512", "--seed", "0"),
        ],
    ),
    "gptq": (
        {"gpus": [1], "options": {"calibration": "texts", "scheme": "W8A16"}},
        [
            *("/programs/quantize.py", "--method", "gptq", "--calibrate", "--scheme", "W8A16"),
            *("--ignore", "lm_head", "--samples", "256", "--length", "512", "--seed", "0"),
        ],
    ),
    "trtllm": (
        {"gpus": [1, 2], "options": {"length": 4096}},
        [
            *("/programs/to_trtllm.py", "--gpus", "2", "--dtype", "auto"),
            *("--batch", "64", "--length", "4096", "--tokens", "8192"),
        ],
    ),
}


def site(*conversions: Any, **fields: Any) -> dict[str, Any]:
    """Return a document of one host that serves `small` on GPU 0 and converts."""
    served = host(model(gpus=[0]), gpus=4, conversions=list(conversions))
    texts = lock("texts") | {"files": [{"path": "a.jsonl", "size": 500, "sha256": "0123456789abcdef" * 4}]}
    old = lock("old") | {"files": [{"path": "old.gguf", "size": 500, "sha256": "0123456789abcdef" * 4}]}
    hub = lock("of-a-hub") | {"repo": "org/name"}
    locks = {"small": lock("small"), "texts": texts, "old": old, "of-a-hub": hub}
    return document({"h1": served}, images=images(*IMAGES), locks=locks) | fields


def entry(kind: str = "gguf", **fields: Any) -> dict[str, Any]:
    return {"name": "made", "from": "small", "kind": kind} | SMALLEST[kind][0] | fields


def problems(*conversions: Any, **fields: Any) -> list[str]:
    return [problem.text() for problem in evaluate(site(*conversions, **fields))[1]]


def test_every_kind_has_an_example() -> None:
    assert set(SMALLEST) == set(kinds())


@pytest.mark.parametrize("kind", SMALLEST)
def test_job_of_a_kind(kind: str) -> None:
    (job,) = plan(site(entry(kind)))["conversions"]
    assert job["command"] == SMALLEST[kind][1]
    assert job["devices"] == [str(gpu) for gpu in SMALLEST[kind][0].get("gpus", [])]
    assert job["image"]["config_digest"].startswith("sha256:")
    assert job["inputs"][0]["mount"] == "/input"
    assert job["inputs"][0]["path"] == f"/srv/redoubt/models/{job['inputs'][0]['name']}/{REVISION[:12]}"
    assert job["environment"]["HF_HUB_OFFLINE"] == "1"
    assert job["needed_bytes"] == 500 * kinds()[kind]["disk"]


def test_calibration_is_an_input_with_digests() -> None:
    (job,) = plan(site(entry("awq")))["conversions"]
    assert [(one["name"], one["mount"]) for one in job["inputs"]] == [("small", "/input"), ("texts", "/calibration")]


def test_site_without_conversions_needs_nothing_for_them() -> None:
    assert plan(site())["conversions"] == []
    with_one = plan(site(entry()))
    assert "llama_cpp" not in [image["key"] for image in with_one["images"]]
    assert [one["name"] for one in with_one["weights"]] == ["small"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "ggfu"}, r"kind = \"ggfu\": there is no such kind. Fix: did you mean `gguf`?"),
        (
            {"name": "small"},
            'name = "small": the result would replace its own input. Fix: give the result another name.',
        ),
        (
            {"name": "of-a-hub"},
            "that is the name of a model of a hub (org/name). Fix: give the result a name of its own.",
        ),
        ({"name": "../x"}, "a model's name is 1 to 63 lower-case letters"),
        (
            {"from": "nobody"},
            'from = "nobody": it has no entry in redoubt_model_locks (there are: of-a-hub, old, small',
        ),
        (
            {"from": "old"},
            "gguf takes .safetensors files, and the lock of old has none. Fix: name a model that has them.",
        ),
        ({"image": "nobody"}, 'image = "nobody": there is no image `nobody` in redoubt_images'),
        ({"gpus": [1]}, "gpus = [1]: gguf works without a GPU. Fix: remove it."),
        ({"python": "sh -c"}, "it is not a Python. Fix: write python3.11."),
        (
            {"options": {"outtype": "f16"}},
            'options.outtype = "f16": gguf has no such option. Fix: did you mean `type`?',
        ),
        (
            {"options": {"type": "Q8_0"}},
            "it is not allowed. Fix: write one of auto, bf16, f16, f32, q8_0 (did you mean q8_0?)",
        ),
        ({"options": {"quantize": "; rm -rf /"}}, "it is not allowed. Fix: write one of Q2_K"),
        ({"options": ["type"]}, 'options = ["type"]: it is not a mapping'),
        ({"resources": {"memory": "8"}}, 'resources.memory = "8": it is not a size'),
    ],
)
def test_wrong_entry_is_refused_with_its_fix(wrong: dict[str, Any], said: str) -> None:
    found = problems(entry() | wrong)
    assert len(found) == 1, found
    assert found[0].startswith("redoubt_conversions[0].")
    assert said.replace("\\", "") in found[0]


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("awq", {"options": {}}, "options.calibration: awq needs it. Fix: add `calibration`."),
        ("awq", {"options": {"calibration": "nobody"}}, 'options.calibration = "nobody": it has no entry'),
        ("awq", {"options": {"calibration": "texts", "samples": 0}}, "write a whole number from 1 to 65536"),
        ("awq", {"options": {"calibration": "../etc"}}, "it is not a name. Fix: write a name without folders."),
        ("fp8", {"options": {"scheme": "FP8"}}, "scheme FP8 measures activations on data"),
        ("fp8", {"options": {"ignore": ["--x y"]}}, "it is not a list of modules' names"),
        ("fp8", {"options": {"ignore": ["--scheme"]}}, "it is not a list of modules' names"),
        ("fp8", {"gpus": None}, "fp8 takes GPUs, and none from engines by itself. Fix: name GPUs that serve nothing"),
        ("trtllm", {"gpus": []}, "trtllm takes GPUs, and none from engines by itself"),
        ("trtllm", {"gpus": [7]}, "the host has no GPU 7. Fix: name some of its 4 GPUs."),
        ("trtllm", {"gpus": [0]}, "GPU 0 serves model small. Fix: name a GPU that serves nothing, or drain the host"),
        ("trtllm", {"options": {}}, "options.length: trtllm needs it"),
        ("safetensors", {"options": {"file": "../../x.gguf"}}, "it is not a name"),
    ],
)
def test_wrong_options_and_gpus_are_refused_with_the_fix(kind: str, wrong: dict[str, Any], said: str) -> None:
    found = problems(entry(kind) | wrong)
    assert len(found) == 1, found
    assert said in found[0]


def test_drained_host_may_give_all_its_gpus() -> None:
    drained = {"h1": {"since": "2026-01-01T00:00:00Z", "by": "me", "reason": "conversion"}}
    assert not problems(entry("trtllm", gpus=[0]), drained=drained)


def test_image_without_a_digest_is_refused() -> None:
    document = site(entry())
    document["images"]["llama_cpp"].pop("config_digest")
    found = [problem.text() for problem in evaluate(document)[1]]
    assert len(found) == 1
    assert "redoubt_images.llama_cpp: example/llama_cpp:1.0.0 is named by tag only" in found[0]


def test_two_results_of_one_name_are_refused() -> None:
    (found,) = problems(entry(), entry("onnx"))
    assert 'redoubt_conversions[1].name = "made": the name is already used by redoubt_conversions[0]' in found


def test_it_is_a_list_of_mappings() -> None:
    served = host(model(), conversions={"name": "x"})
    assert "redoubt_conversions = " in evaluate(document({"h1": served}))[1][0].text()
    assert "a conversion is a mapping" in problems("made")[0]


def test_only_one_is_chosen_by_name() -> None:
    jobs = plan(site(entry(), entry("onnx", name="other")))["conversions"]
    assert [job["name"] for job in conversions_chosen(jobs, "")] == ["made", "other"]
    assert [job["name"] for job in conversions_chosen(jobs, "other")] == ["other"]
    with pytest.raises(
        ValueError, match=r"convert_only = third: this host has no such conversion\. Fix: name one of: made"
    ):
        conversions_chosen(jobs, "third")


def test_what_jobs_need_is_brought_with_what_is_served() -> None:
    made = plan(site(entry("awq"), entry("gguf", name="other")))
    wanted = conversion_weights(made["conversions"], made["weights"])
    assert [item["name"] for item in wanted] == ["small", "texts"]
    assert all(set(item) == set(made["weights"][0]) for item in wanted)
    assert [image["key"] for image in conversion_images(made["conversions"])] == ["llm_compressor", "llama_cpp"]
