"""What the doctor and the plan make of the store's inventory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.inspection import GEOMETRY
from ansible.module_utils.artifacts.progress import write_json
from ansible.module_utils.checks import examine

from library.host_facts import model_facts
from planner import weights_checks
from planner.core import MODELS_ROOT, evaluate
from planner.parse import parse
from planner.plain import plain
from planner.problems import Problems
from tests.support.plan_documents import REVISION, document, host, model

GIB = 2**30
TREE = "/srv/redoubt/models/m/0123456789ab"


def inventory(state: Path, *, days: float = 1, **row: Any) -> None:
    """Write an inventory of one revision whose proof is so many days old."""
    proved = time.time() - days * 86400
    revision = {"path": TREE, "damaged": [], "facts": {}, **row}
    models = {"m": {"0123456789ab": revision}}
    write_json(state / "inventory.json", {"schema": 1, "bytes": 5, "oldest_proof": proved, "models": models})


def look(state: Path, *, timer: bool = True) -> tuple[bool, str]:
    if timer:
        (state / "timer").touch()
    answer = examine({**weights_checks.proofs(), "state_dir": str(state), "timer": str(state / "timer")})
    assert bool(answer["remedy"]) is not answer["ok"]
    return answer["ok"], answer["detail"]


@pytest.mark.parametrize(
    ("found", "timer", "ok", "said"),
    [
        ({}, True, True, "1 revision, 5 bytes, the oldest proof is 1 days old"),
        ({"damaged": ["a.dat", "b.dat"]}, True, False, f"known to be damaged: {TREE}/a.dat, {TREE}/b.dat"),
        ({"days": 41}, True, False, "the oldest proof is 41 days old"),
        ({"days": 41}, False, True, "no timer proves them again (weights_reproof_calendar)"),
        ({"damaged": ["a.dat"]}, False, False, f"{TREE}/a.dat"),
    ],
)
def test_proofs_are_judged(tmp_path: Path, found: dict[str, Any], timer: bool, ok: bool, said: str) -> None:
    inventory(tmp_path, **found)
    answer = look(tmp_path, timer=timer)
    assert answer[0] is ok
    assert said in answer[1]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"schema": 1, "models": 3}'])
def test_inventory_that_cannot_be_read_is_no_good_news(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "inventory.json").write_text(text)
    assert look(tmp_path)[0] is False


def test_facts_of_models_are_gathered_as_far_as_headers_say(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"tensor_bytes": {}, "tensor_dtypes": {}, "geometry": {}}
    assert model_facts(str(tmp_path)) == nothing
    inventory(tmp_path)
    assert model_facts(str(tmp_path)) == nothing
    inventory(tmp_path, facts={"tensor_bytes": 7, "dtypes": {"BF16": 6, "I8": 1}, "config": {"hidden_size": 8}})
    assert model_facts(str(tmp_path)) == {
        "tensor_bytes": {TREE: 7},
        "tensor_dtypes": {TREE: {"BF16": 6, "I8": 1}},
        "geometry": {TREE: {"hidden_size": 8}},
    }


def test_plan_knows_types_of_tensors_and_geometry_of_models_on_the_host(tmp_path: Path) -> None:
    """All the way: what inspection found, through the module's facts, to the planner's document."""
    config: dict[str, Any] = dict.fromkeys(GEOMETRY, 4) | {
        **dict.fromkeys(("model_type", "torch_dtype", "dtype"), "llama"),
        "architectures": ["LlamaForCausalLM"],
        "quantization_config": {"bits": 4},
        "tie_word_embeddings": True,
        "text_config": {"num_hidden_layers": 2},
    }
    inventory(tmp_path, facts={"tensor_bytes": 7, "dtypes": {"BF16": 7}, "config": config})
    known = parse(document(facts=plain(model_facts(str(tmp_path)))), Problems())
    assert known is not None
    assert known.facts.tensor_bytes == {TREE: 7}
    assert known.facts.tensor_dtypes == {TREE: {"BF16": 7}}
    assert known.facts.geometry == {TREE: {**config, "architectures": ("LlamaForCausalLM",)}}


@pytest.mark.parametrize(
    "odd",
    [
        "x",
        {TREE: -3},
        {TREE: True},
        {TREE: {"hidden_size": "many", "head_dim": -1}},
        {TREE: {"hidden_size": True, "dtype": [3], "text_config": [1], "architectures": "x"}},
        {TREE: {"quantization_config": "awq", "tie_word_embeddings": 1.5, "unheard_of": {}}},
    ],
)
def test_odd_figures_of_a_model_are_unknown(odd: object) -> None:
    known = parse(document(facts=dict.fromkeys(("tensor_bytes", "tensor_dtypes", "geometry"), odd)), Problems())
    assert known is not None
    assert (known.facts.tensor_bytes, known.facts.tensor_dtypes, known.facts.geometry) == ({}, {}, {})


def problems(raw: dict[str, Any]) -> dict[str, Any]:
    return {problem.where: problem for problem in evaluate(raw)[1]}


def test_memory_is_judged_by_the_tensors_where_they_are_known() -> None:
    place = f"{MODELS_ROOT}/small/{REVISION[:12]}"
    hosts = {"h1": host(model(resources={"memory": "3g", "kv_cache_gib": 2}))}
    assert problems(document(hosts)) == {}  # its files are small, so it fits
    raw = document(hosts, facts={"tensor_bytes": {place: 2 * GIB}})
    assert "weights and KV cache need 4.0 GiB" in problems(raw)["redoubt_models[0].resources.memory"].why
    assert problems(document(hosts, facts={"tensor_bytes": {f"{place}0": 2 * GIB, place: None}})) == {}
