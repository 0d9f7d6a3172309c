"""daemon.json merged: pure functions, so properties as well as cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.docker_daemon import docker_daemon_merge, merge, without

FILE, RECORD = "/etc/docker/daemon.json", "/var/lib/redoubt/docker/daemon.json"
OURS = {"log-driver": "local", "log-opts": {"max-size": "50m"}, "live-restore": True}

leaves = st.one_of(st.booleans(), st.integers(), st.text(max_size=4))
options = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), leaves, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from("abcd"), st.one_of(leaves, st.lists(leaves, max_size=3), inner), max_size=4
    ),
    max_leaves=8,
)


def merged(existing: Any, ours: dict[str, Any], earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    text = existing if existing is None or isinstance(existing, str) else json.dumps(existing)
    texts = {FILE: text, RECORD: None if earlier is None else json.dumps(earlier)}
    return docker_daemon_merge(texts, ours, FILE, RECORD)


def wins(result: Any, ours: Any) -> bool:
    """Whether all of `ours` is in `result`."""
    if isinstance(ours, dict):
        return isinstance(result, dict) and all(key in result and wins(result[key], ours[key]) for key in ours)
    if isinstance(ours, list):
        return isinstance(result, list) and all(item in result for item in ours)
    return bool(result == ours)


@pytest.mark.parametrize("text", [None, "", "  \n", "{}"])
def test_nothing_there(text: str | None) -> None:
    assert merged(text, OURS) == OURS


def test_other_keys_stay_lists_unite_ours_win() -> None:
    existing = {"debug": True, "live-restore": False, "dns": ["192.0.2.1"], "runtimes": {"nvidia": {"path": "x"}}}
    ours = {**OURS, "dns": ["192.0.2.2", "192.0.2.1"], "runtimes": {"other": {"path": "y"}}}
    assert merged(existing, ours) == {
        **OURS,
        "debug": True,
        "dns": ["192.0.2.1", "192.0.2.2"],
        "runtimes": {"nvidia": {"path": "x"}, "other": {"path": "y"}},
    }


def test_options_of_another_log_driver_go_with_it() -> None:
    assert merged({"log-driver": "journald", "log-opts": {"tag": "x"}}, OURS)["log-opts"] == {"max-size": "50m"}
    assert merged({"log-opts": {"tag": "x"}}, OURS)["log-opts"] == {"max-size": "50m"}
    same = merged({"log-driver": "local", "log-opts": {"compress": "true"}}, OURS)
    assert same["log-opts"] == {"compress": "true", "max-size": "50m"}


def test_what_an_earlier_run_set_goes_and_what_was_changed_by_hand_stays() -> None:
    earlier = {**OURS, "debug": True, "shutdown-timeout": 30, "labels": ["ours"], "features": {"a": True}}
    existing = {**earlier, "shutdown-timeout": 99, "labels": ["theirs", "ours"], "features": {"a": True, "b": True}}
    result = merged(existing, OURS, earlier)
    assert result == {**OURS, "shutdown-timeout": 99, "labels": ["theirs"], "features": {"b": True}}


@pytest.mark.parametrize(("text", "words"), [('{"a": tru', "not valid JSON"), ("[1]", "no JSON object")])
def test_broken_file_is_named(text: str, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        merged(text, OURS)
    assert FILE in str(caught.value)


@given(options, options)
def test_ours_always_win(existing: dict[str, Any], ours: dict[str, Any]) -> None:
    assert wins(merge(existing, ours), ours)


@given(options, options)
def test_second_run_changes_nothing(existing: dict[str, Any], ours: dict[str, Any]) -> None:
    once = merged(existing, ours)
    assert merged(once, ours, earlier=ours) == once


@given(options, options)
def test_keys_of_others_survive(existing: dict[str, Any], ours: dict[str, Any]) -> None:
    result = merge(existing, ours)
    assert {key: result[key] for key in existing if key not in ours} == {
        key: value for key, value in existing.items() if key not in ours
    }


@given(options, options)
def test_taking_back_leaves_no_key_of_ours_alone(theirs: dict[str, Any], earlier: dict[str, Any]) -> None:
    left = without(merge(theirs, earlier), earlier, {})
    assert set(left) <= set(theirs)
