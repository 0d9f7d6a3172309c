"""The register of issued API keys: each verb, each refusal, and that no key gets in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from filter_plugins.gateway_keys import gateway_issued_key_problems, gateway_key_rows, gateway_keys_changed
from policy import register
from policy.keys import key_records
from tests.support.gateway_render import MODELS

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
NOW = datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC)
ALICE: dict[str, Any] = {"name": "alice", "digest": ONE}


def test_issue_sorts_and_changes_nothing_given() -> None:
    before = [{"name": "bob", "digest": TWO}]
    after = register.issue(before, "alice", ONE, {"tokens_per_minute": 5})
    assert after == [{"name": "alice", "digest": ONE, "tokens_per_minute": 5}, {"name": "bob", "digest": TWO}]
    assert before == [{"name": "bob", "digest": TWO}]


@pytest.mark.parametrize("name", ["alice", "ALICE"])
def test_a_client_gets_no_second_key(name: str) -> None:
    with pytest.raises(register.KeyRefused, match="has a key already"):
        register.issue([ALICE], name, TWO, {})


@pytest.mark.parametrize("field", ["name", "key", "digest", "previous"])
def test_limits_hold_no_key(field: str) -> None:
    with pytest.raises(register.KeyRefused, match="keys_limits"):
        register.issue([], "alice", ONE, {field: "x"})


def test_rotate_keeps_the_limits_and_the_key_before_for_a_while() -> None:
    limited = {**ALICE, "models": ["small"], "previous": {"digest": "sha256:" + "9" * 64, "expires": "2026-01-01"}}
    (after,) = register.rotate([limited], "alice", TWO, NOW, timedelta(hours=2))
    assert after["digest"] == TWO
    assert after["models"] == ["small"]
    assert after["previous"] == {"digest": ONE, "expires": "2026-11-23T14:00:00+00:00"}
    assert gateway_issued_key_problems([after], [], MODELS) == []
    rows = {row["id"]: row["record"] for row in key_records([after])}
    assert set(rows) == {"1" * 16, "2" * 16}
    assert '"expires":1795442400' in rows["1" * 16]
    assert "expires" not in rows["2" * 16]


def test_a_key_before_ends_with_the_client() -> None:
    ends = {**ALICE, "expires": "2026-11-23T13:00:00+00:00"}
    after = register.rotate([ends], "alice", TWO, NOW, timedelta(hours=2))
    assert all('"expires":1795438800' in row["record"] for row in key_records(after))


def test_rotate_without_overlap_ends_the_key_before_at_once() -> None:
    (after,) = register.rotate([ALICE], "alice", TWO, NOW, timedelta())
    assert "previous" not in after


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
def test_nobody_elses_key_is_changed(verb: str) -> None:
    with pytest.raises(Exception, match="no key of 'bob' was issued - there are: alice"):
        gateway_keys_changed([ALICE], verb, "bob", TWO, {}, 1)


def test_revoke_takes_the_client_out() -> None:
    bob = {"name": "bob", "digest": TWO}
    assert register.revoke([ALICE, bob], "alice") == [bob]


def test_rows_tell_state_and_limits_but_no_digest() -> None:
    entries = [
        {**ALICE, "expires": "2026-11-01", "tokens_per_minute": 7},
        {
            "name": "bob",
            "digest": TWO,
            "models": ["small"],
            "previous": {"digest": ONE, "expires": "2026-11-24T00:00:00+00:00"},
        },
    ]
    rows = register.rows(entries, NOW)
    assert rows == [
        "alice: expired; digest 11111111…; expires 2026-11-01; 7 tokens per minute",
        "bob: valid; digest 22222222…; the key before valid until 2026-11-24T00:00:00+00:00; models small",
    ]
    assert gateway_key_rows([]) == ["no key was issued"]


def test_the_gateways_refusals_come_before_the_register_is_written() -> None:
    wrong = register.issue([], "alice", ONE, {"models": ["tiny"]})
    (line,) = gateway_issued_key_problems(wrong, [], MODELS)
    assert line == "gateway_issued_keys[0] (alice): models: 'tiny' is none of large, small - write some of these"
    assert gateway_issued_key_problems(wrong, [], []) == []  # as preflight asks, before there is a plan
    twice = gateway_issued_key_problems([ALICE], [{"name": "Alice", "key": "k" * 40}], MODELS)
    assert any("given twice" in line for line in twice)
    assert gateway_issued_key_problems([], [], MODELS) == []
