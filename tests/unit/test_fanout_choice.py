"""Who brings which file: every host comes to the same choice, and nobody is waited for in vain."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.fanout.choice import ORIGIN, PEERS, WAIT, Word, choose, parse_word, ranks

FILES = [(f"{number:02}", 1000 - number) for number in range(12)]
ALL = frozenset(sha256 for sha256, _ in FILES)


def words(**change: Word) -> dict[str, Word]:
    return {name: Word(needs=ALL, working=True) for name in ("a", "b", "c")} | change


def bringers(sha256: str, rank: int) -> list[str]:
    """The hosts that go to the origin for a file, each by its own choice."""
    said = words()
    return [me for me in said if choose(sha256, rank, me, said, said)[0] == ORIGIN]


def test_each_file_has_one_bringer_and_each_host_its_share() -> None:
    found = [bringers(sha256, rank) for sha256, rank in ranks(FILES).items()]
    assert all(len(names) == 1 for names in found)
    assert {name: sum(names == [name] for names in found) for name in "abc"} == {"a": 4, "b": 4, "c": 4}


def test_whoever_has_it_is_asked_and_not_all_ask_the_same() -> None:
    said = words(a=Word(have=ALL), b=Word(have=ALL)) | {"d": Word(needs=ALL, working=True)}
    asked = {me: choose("01", 1, me, said, said) for me in ("c", "d")}
    assert {way for way, _ in asked.values()} == {PEERS}
    assert {names[0] for _, names in asked.values()} == {"a", "b"}
    assert all(sorted(names) == ["a", "b"] for _, names in asked.values())


def test_one_that_is_bringing_it_is_waited_for_also_out_of_turn() -> None:
    assert choose("00", 0, "a", words(c=Word(needs=ALL, doing=ALL, working=True)), "abc") == (WAIT, ["c"])


@pytest.mark.parametrize(
    ("said", "lively"),
    [
        (words(a=Word(needs=ALL, failed=ALL, working=True)), "abc"),
        (words(), "bc"),
        (words(a=Word(working=True)), "abc"),
    ],
    ids=["could not get it", "gives no sign", "does not need it"],
)
def test_whose_turn_it_would_be_is_passed_over(said: dict[str, Word], lively: str) -> None:
    rank = 0 if "a" in said and said["a"].needs and "a" in lively else 2
    assert choose("00", rank, "b", said, lively) == (ORIGIN, ())


def test_when_all_others_failed_this_one_tries() -> None:
    failed = Word(needs=ALL, failed=ALL, working=True)
    assert choose("00", 0, "c", words(a=failed, b=failed), "abc") == (ORIGIN, ())


@pytest.mark.parametrize("document", [None, [], "x", {"have": 5, "needs": [1, None], "beat": "9", "working": "yes"}])
def test_nonsense_of_another_host_counts_as_not_said(document: Any) -> None:
    assert parse_word(document) == Word()


def test_a_word_comes_over_as_it_was() -> None:
    word = Word(ALL, frozenset({"x"}), frozenset({"y"}), frozenset({"z"}), True, 3, 4)
    assert parse_word(word.document()) == word
