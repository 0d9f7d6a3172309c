"""Manifests of model files: what is accepted, and how the rest is refused."""

from __future__ import annotations

import os.path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import parents, parse_models, path_problem
from hypothesis import given
from hypothesis import strategies as st

from tests.support.weight_trees import model

GOOD = model({"config.json": b"{}", "a/b.safetensors": b"xyz"})

segments = st.text(alphabet="ab.-_ é", min_size=1, max_size=6)
paths = st.lists(segments | st.sampled_from(["..", ".", "", "/", "\\", "\0", "\n"]), min_size=1, max_size=5)


@given(paths.map("/".join))
def test_good_path_stays_strictly_below_the_folder(path: str) -> None:
    if path_problem(path) is None:
        assert os.path.normpath(f"/root/{path}") == f"/root/{path}"


@given(st.lists(segments.filter(lambda item: item not in (".", "..")), min_size=1, max_size=5).map("/".join))
def test_ordinary_path_is_accepted(path: str) -> None:
    assert path_problem(path) is None
    assert [*parents(path), path] == [path[: len(item)] for item in [*parents(path), path]]


@given(st.lists(segments, max_size=3), st.lists(segments, max_size=3))
def test_way_up_is_always_refused(before: list[str], after: list[str]) -> None:
    assert path_problem("/".join([*before, "..", *after])) is not None


@pytest.mark.parametrize("path", [None, 3, "", "/etc/passwd", "a//b", "a/", "./a", "a\\b", "a\x7f", "x" * 300])
def test_odd_paths_are_refused(path: object) -> None:
    assert path_problem(path) is not None


def test_good_model_is_parsed() -> None:
    (parsed,) = parse_models([GOOD])
    assert parsed.folder == f"tiny/{'a' * 12}"
    assert parsed.total_size == 5
    assert [entry.path for entry in parsed.files] == ["a/b.safetensors", "config.json"]


def entry(**change: Any) -> dict[str, Any]:
    return {"path": "a", "size": 1, "sha256": "0" * 64, **change}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../up"}, "name must begin"),
        ({"name": None}, "model number 1: name must begin"),
        ({"revision": "main"}, "revision is 'main', not a commit"),
        ({"revision": None}, "revision is None"),
        ({"files": []}, "has no manifest"),
        ({"files": None}, "has no manifest"),
        ({"files": "a"}, "has no manifest"),
        ({"files": ["a"]}, "not a mapping"),
        ({"files": [entry(path="../a")]}, "'../a' leaves its folder"),
        ({"files": [entry(size=-1)]}, "a: size is -1"),
        ({"files": [entry(size=True)]}, "a: size is True"),
        ({"files": [entry(size="1")]}, "a: size is '1'"),
        ({"files": [entry(sha256="0" * 63)]}, "not 64 lower-case hex digits"),
        ({"files": [entry(sha256="A" * 64)]}, "not 64 lower-case hex digits"),
        ({"files": [entry(), entry()]}, "a is listed twice"),
        ({"files": [entry(path="Readme"), entry(path="README")]}, "README and Readme differ in case only"),
        ({"files": [entry(), entry(path="a/b")]}, "a is listed as a file and as the folder of a/b"),
        ({"files": [entry(path="pytorch_model.BIN")]}, "pickle format"),
        ({"files": [entry(path="a/last.ckpt")]}, "a/last.ckpt is of a pickle format"),
        ({"files": [entry(path="consolidated.pt")]}, "consolidated.pt is of a pickle format"),
    ],
)
def test_bad_model_is_refused_with_its_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_models([{**GOOD, **change}])
    assert said in str(caught.value)
    assert "model " in str(caught.value)


def test_pickle_may_be_allowed_by_model_or_by_file() -> None:
    pickled = model({"a.pt": b"1"})
    assert parse_models([pickled], ["tiny"])
    assert parse_models([pickled], ["tiny/a.pt"])
    with pytest.raises(Refusal, match=r"add 'tiny/a\.pt' to weights_allow_pickle"):
        parse_models([pickled], ["tiny/b.pt", "other"])


def test_same_name_twice_is_refused_and_all_problems_are_told() -> None:
    with pytest.raises(Refusal) as caught:
        parse_models([GOOD, {**GOOD, "revision": "x"}])
    assert "is listed twice" in str(caught.value)
    assert "revision is 'x'" in str(caught.value)


def test_many_problems_are_cut_short() -> None:
    with pytest.raises(Refusal) as caught:
        parse_models([{**GOOD, "files": [entry(path=f"../{number}") for number in range(100)]}])
    assert len(str(caught.value).splitlines()) == 21
    assert "and 80 more" in str(caught.value)


def test_repository_is_kept_and_an_odd_one_refused() -> None:
    assert parse_models([{**GOOD, "repo": "org/name"}])[0].repo == "org/name"
    assert parse_models([GOOD])[0].repo == ""
    for bad in ("../x", "a/b/c", "https://hub/a", 5):
        with pytest.raises(Refusal, match="write it as the hub does"):
            parse_models([{**GOOD, "repo": bad}])
