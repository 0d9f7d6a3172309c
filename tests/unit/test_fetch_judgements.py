"""Pure decisions of the fetch engine: which answer is about the bytes asked for, and how long to wait."""

from __future__ import annotations

import threading
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.fetch import board
from ansible.module_utils.fetch.channel import begins_at, retry_after
from ansible.module_utils.fetch.errors import Retry, Unusable
from ansible.module_utils.fetch.pace import LONGEST_PAUSE, Bandwidth, pause
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fault_server import Asked, Fault, serving
from tests.unit.test_fetch_faults import FILES, SMALL_ITEM, assert_right, bring, web


def headers(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@given(st.integers(0, 100), st.integers(1, 100), st.integers(0, 300), st.integers(-10, 300), st.integers(0, 300))
def test_range_that_was_not_asked_for_is_never_taken(
    start: int, length: int, first: int, last: int, total: int
) -> None:
    size, stop = 200, start + length
    answer = headers(Content_Range=f"bytes {first}-{last}/{total}")
    try:
        begin = begins_at(206, "", answer, start, stop, size, "x")
    except Unusable:
        return
    assert (begin, first, total) == (start, start, size)
    assert last < stop


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_busy_servers_are_asked_later(status: int) -> None:
    with pytest.raises(Retry) as caught:
        begins_at(status, "", headers(Retry_After="7"), 0, 5, 10, "x")
    assert caught.value.after == 7


@pytest.mark.parametrize("text", [None, "", "soon", "-3"])
def test_odd_retry_after_is_as_none(text: str | None) -> None:
    assert retry_after(text) is None


@pytest.mark.parametrize(("status", "seconds"), [(429, 30), (503, 1), (503, 300)])
def test_busy_server_is_not_asked_before_the_time_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, seconds: int
) -> None:
    """The clock goes on only while a connection waits; the pause of our own would be a hundredth of a second."""
    now, asked_at = [1000.0], []

    class Condition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            now[0] += timeout or 0
            return False

    monkeypatch.setattr(board, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(board, "threading", SimpleNamespace(Condition=Condition))

    def rule(asked: Asked) -> Fault | None:
        asked_at.append(now[0])
        return Fault(status=status, headers={"Retry-After": str(seconds)}) if len(asked_at) == 1 else None

    with serving(FILES) as server:
        server.rule = rule
        assert_right(tmp_path, bring(tmp_path, [SMALL_ITEM], web(server), connections=1))
    assert asked_at == [1000, 1000 + seconds]


def test_retry_after_as_a_date() -> None:
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (retry_after("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 1e9


@given(st.integers(1, 200), st.floats(0, 1))
def test_pauses_double_and_stay_bounded(failures: int, luck: float) -> None:
    seconds = pause(failures, 0.5, lambda: luck)
    whole = min(LONGEST_PAUSE, 0.5 * 2.0 ** (failures - 1))
    assert whole / 2 <= seconds <= whole


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50), st.integers(1, 5000))
def test_bandwidth_is_never_exceeded(counts: list[int], rate: int) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    cap = Bandwidth(rate, lambda: now[0], sleep)
    for count in counts:
        cap.take(count)
    assert sum(counts) / rate <= now[0] * 1.001


def test_bandwidth_of_zero_is_no_cap() -> None:
    Bandwidth(0, sleep=lambda seconds: pytest.fail("slept")).take(10**12)
