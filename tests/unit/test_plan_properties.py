"""What holds for every plan, whatever the inventory says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from planner import PlanRefused, evaluate, plan
from tests.support.plan_documents import document, host, model

NAMES = st.text("abcdefghij", min_size=1, max_size=6)
GPUS = st.one_of(
    st.integers(0, 10),
    st.just("auto"),
    st.lists(st.integers(0, 9).map(str), min_size=1, max_size=4, unique=True),
)
PORTS = st.one_of(st.none(), st.integers(8100, 8106))


@st.composite
def models(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(NAMES, min_size=1, max_size=5))
    return [model(name, gpus=draw(GPUS), port=draw(PORTS)) for name in names]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(listed=models(), known=st.one_of(st.none(), st.integers(0, 8)))
@settings(max_examples=300)
def test_a_plan_that_is_made_is_sound(listed: list[dict[str, Any]], known: int | None) -> None:
    raw = document({"h1": host(*listed, gpus=known, kinds=("gateway", "inference"))})
    try:
        made = plan(raw)
    except PlanRefused as refused:
        assert refused.problems
        return
    engines = made["engines"]
    assert [engine["name"] for engine in engines] == [entry["name"] for entry in listed]
    ports = [engine["port"] for engine in engines]
    assert len(set(ports)) == len(ports)
    devices = [device for engine in engines for device in engine["devices"]]
    assert len(set(devices)) == len(devices)
    if known is not None:
        assert len(devices) <= known
        assert {int(device) for device in devices} <= set(range(known))
    for engine, entry in zip(engines, listed, strict=True):
        if isinstance(entry["gpus"], int):
            assert len(engine["devices"]) == entry["gpus"]
    servers = [server for entry in made["gateway"]["models"] for server in entry["servers"]]
    assert sorted(servers) == sorted(f"127.0.0.1:{port}" for port in ports)
    assert json.loads(json.dumps(made)) == made
    assert plan(raw) == made


@given(listed=models())
def test_a_model_more_changes_nothing_for_those_before_it(listed: list[dict[str, Any]]) -> None:
    """Order-stable: engines keep their ports and GPUs when another model is written below them."""
    counted = [entry | {"gpus": 1, "port": None, "name": f"m{index}"} for index, entry in enumerate(listed)]
    fewer = plan(document({"h1": host(*counted, gpus=8)}))["engines"]
    more = plan(document({"h1": host(*counted, model("last", gpus=1), gpus=8)}))["engines"]
    assert more[: len(fewer)] == fewer


@given(names=st.permutations(["gw1", "gpu1", "gpu2"]))
def test_the_order_of_unused_keys_does_not_matter(names: list[str]) -> None:
    hosts = {
        "gw1": host(kinds=("gateway",), address="10.0.0.1"),
        "gpu1": host(model("a"), address="10.0.0.2"),
        "gpu2": host(model("a"), address="10.0.0.3"),
    }
    made = plan(document({name: hosts[name] for name in names}, "gw1"))
    assert sorted(made["gateway"]["models"][0]["servers"]) == ["10.0.0.2:8101", "10.0.0.3:8101"]


@given(junk=st.dictionaries(st.sampled_from(["name", "gpus", "context", "port", "resources", "engine_args"]), JSON))
@settings(max_examples=300)
def test_junk_in_a_model_never_ends_in_a_stack_trace(junk: dict[str, Any]) -> None:
    made, problems = evaluate(document({"h1": host(model() | junk)}))
    assert made is not None
    assert all(problem.why and problem.fix for problem in problems)


@given(junk=st.dictionaries(st.sampled_from(["host", "hosts", "images", "locks", "sources", "facts"]), JSON))
@settings(max_examples=300)
def test_junk_in_a_document_never_ends_in_a_stack_trace(junk: dict[str, Any]) -> None:
    evaluate(document() | junk)
