"""Engine flags: how engine_args become a command line, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from planner import evaluate, flags, plan
from planner.problems import Problem
from tests.support.plan_documents import document, host, image, images, model

KNOWN, _ = flags.for_tag("vllm", "v0.33.0")


def command(args: dict[str, Any], **fields: Any) -> list[str]:
    """Return the command of a model with these engine_args."""
    made = plan(document({"h1": host(model(engine_args=args, **fields), gpus=8)}))
    words: list[str] = made["engines"][0]["command"]
    return words


def refusal(args: dict[str, Any], **fields: Any) -> Problem:
    """Return the one problem of a model with these engine_args."""
    found = evaluate(document({"h1": host(model(engine_args=args, **fields), gpus=8)}))[1]
    assert len(found) == 1, found
    return found[0]


def test_values_switches_and_lists() -> None:
    words = command(
        {
            "kv_cache_dtype": "fp8",
            "enable-prefix-caching": False,
            "trust-remote-code": True,
            "hf-overrides": {"b": 1, "a": [2]},
            "lora-modules": ["x=/x", "y=/y"],
            "max-log-len": 10,
        }
    )
    text = " ".join(words)
    assert "--kv-cache-dtype fp8" in text
    assert "--no-enable-prefix-caching" in words
    assert "--trust-remote-code" in words
    assert words[words.index("--hf-overrides") + 1] == '{"a": [2], "b": 1}'
    assert "--lora-modules x=/x y=/y" in text
    assert "--max-log-len 10" in text


def test_an_operators_flag_replaces_ours_and_null_takes_it_away() -> None:
    words = command({"dtype": "float32", "enforce_eager": None})
    assert words.count("--dtype") == 1
    assert words[words.index("--dtype") + 1] == "float32"
    assert "--enforce-eager" not in words


@pytest.mark.parametrize("removed", sorted(KNOWN.removed))
def test_removed_flags_name_their_replacement(removed: str) -> None:
    found = refusal({removed: 1})
    assert f"has no --{removed} any more" in found.why
    assert KNOWN.removed[removed] in found.fix


@pytest.mark.parametrize(
    ("args", "why", "fix"),
    [
        ({"max-model-len": 1}, "the plan sets this flag", "`context`"),
        ({"max_num_seqs": 1}, "the plan sets this flag", "`concurrency`"),
        ({"host": "::"}, "the plan sets this flag", "redoubt_private_address"),
        ({"api-key": "abc"}, "the plan sets this flag", "the gateway"),
        ({"enforce-eagr": True}, "no flag --enforce-eagr", "`enforce-eager`"),
        ({"zzzzzz": 1}, "no flag --zzzzzz", "documentation"),
        ({"no-enable-prefix-caching": True}, "turned off by false", "enable-prefix-caching: false"),
        ({"enforce-eager": "yes"}, "is a switch", "true or false"),
        ({"kv-cache-dtype": True}, "needs a value", "instead of true"),
        ({"lora-modules": []}, "empty list", "at least one"),
        ({"tensor-parallel-size": 2}, "no GPU", "give the model GPUs"),
    ],
)
def test_refused_flags(args: dict[str, Any], why: str, fix: str) -> None:
    found = refusal(args)
    assert found.where == f"redoubt_models[0].engine_args.{next(iter(args))}"
    assert why in found.why
    assert fix in found.fix


def test_a_key_in_a_flag_is_never_shown() -> None:
    assert refusal({"api-key": "sk-very-secret"}).value == "(not shown)"


def test_a_flag_given_twice_is_refused() -> None:
    assert "given twice" in refusal({"kv-cache-dtype": "fp8", "kv_cache_dtype": "auto"}).why


@pytest.mark.parametrize(
    ("args", "sizes"),
    [
        ({}, "--tensor-parallel-size 8"),
        ({"pipeline-parallel-size": 2}, "--tensor-parallel-size 4"),
        ({"tensor-parallel-size": 2, "pipeline_parallel_size": 4}, "--tensor-parallel-size 2"),
    ],
)
def test_parallel_sizes_multiply_to_the_gpus(args: dict[str, Any], sizes: str) -> None:
    assert sizes in " ".join(command(args, gpus=8))


@pytest.mark.parametrize(
    "args", [{"tensor-parallel-size": 3}, {"pipeline-parallel-size": 3}, {"tensor-parallel-size": 0}]
)
def test_parallel_sizes_that_do_not_fit_are_refused(args: dict[str, Any]) -> None:
    assert "parallel" in refusal(args, gpus=8).where


def test_each_version_has_its_own_list() -> None:
    assert flags.for_tag("vllm", "v0.32.1")[0].version == "0.32"
    assert flags.for_tag("vllm", "0.33.0-x86_64") == (KNOWN, None)
    newer, warning = flags.for_tag("vllm", "0.40.0")
    assert newer.version == "0.33"
    assert warning is not None
    assert "0.40.0" in warning


def test_an_unknown_version_warns_in_the_plan() -> None:
    made = plan(document(images=images() | {"vllm": image("vllm") | {"tag": "nightly-20261101"}}))
    assert "nightly-20261101" in made["warnings"][0]


def test_every_flag_that_we_set_is_known() -> None:
    for gpus in (0, 2):
        engine = plan(document({"h1": host(model(gpus=gpus))}))["engines"][0]
        ours = {word[2:] for word in engine["command"] if word.startswith("--")}
        for tag in ("0.32.0", "0.33.0"):
            assert ours <= set(flags.for_tag("vllm", tag)[0].known)
