"""What the doctor and the plan make of the store's inventory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.progress import write_json
from ansible.module_utils.checks import examine

from library.host_facts import tensor_bytes
from planner import weights_checks
from planner.core import MODELS_ROOT, evaluate
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


def test_tensor_bytes_are_gathered_as_far_as_headers_say(tmp_path: Path) -> None:
    assert tensor_bytes(str(tmp_path)) == {}
    inventory(tmp_path)
    assert tensor_bytes(str(tmp_path)) == {}
    inventory(tmp_path, facts={"tensor_bytes": 7})
    assert tensor_bytes(str(tmp_path)) == {TREE: 7}


def problems(raw: dict[str, Any]) -> dict[str, Any]:
    return {problem.where: problem for problem in evaluate(raw)[1]}


def test_memory_is_judged_by_the_tensors_where_they_are_known() -> None:
    place = f"{MODELS_ROOT}/small/{REVISION[:12]}"
    hosts = {"h1": host(model(resources={"memory": "3g", "kv_cache_gib": 2}))}
    assert problems(document(hosts)) == {}  # its files are small, so it fits
    raw = document(hosts, facts={"tensor_bytes": {place: 2 * GIB}})
    assert "weights and KV cache need 4.0 GiB" in problems(raw)["redoubt_models[0].resources.memory"].why
    assert problems(document(hosts, facts={"tensor_bytes": {f"{place}0": 2 * GIB, place: None}})) == {}
