"""Events of Ansible added up: phases, tasks, counts, failures, and what is said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cli.events import PhaseDone, Said, Tally, TaskDone
from cli.failures import Failure, failure_text, item_label, tail
from cli.views import region, said_lines, task_line

START = 1_700_000_000.0


def event(kind: str, at: float, **data: Any) -> dict[str, Any]:
    stdout = data.pop("stdout", "")
    created = datetime.fromtimestamp(START + at, UTC).isoformat()
    return {"event": kind, "created": created, "stdout": stdout, "event_data": data}


def play(name: str, at: float, ident: str = "p1") -> dict[str, Any]:
    return event("playbook_on_play_start", at, name=name, uuid=ident)


def task(name: str, at: float, action: str = "ansible.builtin.command") -> list[dict[str, Any]]:
    """Start of a task and of its run on host a."""
    data = {"task": name, "task_uuid": f"t-{name}", "resolved_action": action}
    started = event("playbook_on_task_start", at, name=name, uuid=f"t-{name}", **data)
    return [started, event("runner_on_start", at, host="a", **data)]


def result(kind: str, name: str, at: float, host: str = "a", **data: Any) -> dict[str, Any]:
    data.setdefault("resolved_action", "ansible.builtin.command")
    return event(kind, at, host=host, task=name, task_uuid=f"t-{name}", **data)


def fed(*events: dict[str, Any]) -> tuple[Tally, list[Any]]:
    tally = Tally(START)
    return tally, [notice for one in events for notice in tally.feed(one)]


def test_phases_tasks_and_seconds() -> None:
    tally, notices = fed(
        play("One", 0),
        *task("first", 1),
        result("runner_on_ok", "first", 3, res={"changed": True}),
        *task("second", 4),
        result("runner_on_skipped", "second", 4.5),
        play("Two", 5, "p2"),
        *task("third", 5),
        result("runner_on_ok", "third", 9, res={}),
        event("playbook_on_stats", 10),
    )
    assert [(p.name, p.seconds, p.tasks, p.changed) for p in tally.phases] == [("One", 5, 2, 1), ("Two", 5, 1, 0)]
    assert [(t.name, t.seconds) for t in tally.tasks] == [("first", 2), ("second", 0.5), ("third", 4)]
    assert tally.counts["a"].document() == {
        **dict.fromkeys(("failed", "unreachable", "rescued", "ignored"), 0),
        **{"dispatched": 3, "ok": 2, "changed": 1, "skipped": 1, "module_tasks": 2},
    }
    done = [notice for notice in notices if isinstance(notice, TaskDone)]
    assert task_line(done[0]) == "[00:04] One | first | ok 1 changed 1 failed 0 | 2.0s"
    assert task_line(done[1]) == "[00:05] One | second | ok 0 changed 0 failed 0 skipped 1 | 0.5s"
    assert [notice.phase.name for notice in notices if isinstance(notice, PhaseDone)] == ["One", "Two"]
    assert all(phase.complete for phase in tally.phases)


def test_includes_are_dispatched_but_run_no_module() -> None:
    tally, _ = fed(
        play("One", 0),
        *task("include", 0, "ansible.builtin.include_role"),
        result("runner_on_ok", "include", 1, resolved_action="ansible.builtin.include_role", res={}),
        *task("run", 1),
        result("runner_on_ok", "run", 2, res={}),
    )
    assert (tally.counts["a"].dispatched, tally.counts["a"].module_tasks) == (2, 1)


def test_an_interrupted_run_closes_what_is_open_and_says_so() -> None:
    tally, _ = fed(play("One", 0), *task("slow", 1))
    notices = tally.finish(START + 7)
    assert [task.seconds for task in tally.tasks] == [6]
    assert not tally.phases[0].complete
    assert any(isinstance(notice, PhaseDone) for notice in notices)


def test_failures_carry_host_task_place_and_text() -> None:
    tally, notices = fed(
        play("One", 0),
        *task("break", 0),
        result("runner_on_failed", "break", 1, res={"msg": "no", "stderr": "why", "rc": 3}, task_path="/x.yml:3"),
        event("playbook_on_stats", 2),
    )
    failure = next(notice for notice in notices if isinstance(notice, Failure))
    assert failure.lines() == [
        "FAILED a | One | break",
        "  at /x.yml:3",
        "  no",
        "  exit code: 3",
        "  stderr:",
        "    why",
    ]
    assert (tally.counts["a"].failed, tally.phases[0].failed) == (1, 1)


def test_failed_items_are_reported_once_each_and_follow_the_task() -> None:
    for ignored in (False, True):
        tally, notices = fed(
            play("One", 0),
            *task("loop", 0),
            result("runner_item_on_failed", "loop", 1, res={"msg": "bad", "item": "x"}),
            result("runner_on_failed", "loop", 2, res={"msg": "one failed", "results": [{}]}, ignore_errors=ignored),
        )
        failures = [notice for notice in notices if isinstance(notice, Failure)]
        assert [(f.item, f.text, f.ignored) for f in failures] == [("x", "bad", ignored)]
        assert (tally.counts["a"].failed, tally.counts["a"].ignored) == ((0, 1) if ignored else (1, 0))


def test_items_of_a_task_that_goes_on_well_leave_no_failure() -> None:
    tally, _ = fed(
        play("One", 0),
        *task("loop", 0),
        result("runner_item_on_failed", "loop", 1, res={"msg": "bad", "item": "x"}),
        result("runner_on_ok", "loop", 2, res={"results": [{}]}),
    )
    assert tally.failures == []


def test_rescued_failures_are_taken_back_at_the_end() -> None:
    tally, _ = fed(
        play("One", 0),
        *task("break", 0),
        result("runner_on_failed", "break", 1, res={"msg": "no"}),
        event("playbook_on_stats", 2, rescued={"a": 1}),
    )
    counts = tally.counts["a"]
    assert (counts.failed, counts.rescued, counts.dispatched) == (0, 1, 1)


def test_unreachable_hosts() -> None:
    tally, notices = fed(
        play("One", 0), *task("ping", 0), result("runner_on_unreachable", "ping", 1, res={"msg": "no route"})
    )
    assert tally.counts["a"].unreachable == 1
    assert tally.failures[0].headline() == "UNREACHABLE a | One | ping"
    assert notices == tally.failures


def test_hidden_results_stay_hidden() -> None:
    _, notices = fed(
        play("One", 0),
        *task("secret", 0),
        result("runner_on_failed", "secret", 1, res={"censored": "hidden by no_log", "item": "s3cret"}),
    )
    assert notices[0].text == "hidden by no_log"
    assert item_label({"censored": "hidden", "item": "s3cret"}) is None


def test_messages_diffs_and_warnings_are_said() -> None:
    debug = {"resolved_action": "ansible.builtin.debug"}
    holds = {"resolved_action": "ansible.builtin.assert"}
    _, notices = fed(
        play("One", 0),
        *task("tell", 0, "ansible.builtin.debug"),
        result("runner_on_ok", "tell", 1, res={"msg": ["two", "lines"]}, **debug),
        result("runner_on_ok", "table", 1, res={"msg": "all is well"}, **holds),
        result("runner_on_ok", "silent", 1, res={"msg": "All assertions passed"}, **holds),
        event("runner_on_file_diff", 1, host="a", stdout="--- before\r\n+++ after\r\n"),
        event("warning", 1, stdout="[WARNING]: careful"),
        event("verbose", 1, stdout="Playbook run took 0 days, 0 hours, 0 minutes, 2 seconds"),
    )
    said = [notice for notice in notices if isinstance(notice, Said)]
    assert [(one.kind, one.text) for one in said] == [
        ("message", "two\nlines"),
        ("message", "all is well"),
        ("diff", "--- before\n+++ after"),
        ("warning", "[WARNING]: careful"),
    ]
    assert said_lines(said[0]) == ["  a:", "    two", "    lines"]
    assert said_lines(said[1]) == ["  a: all is well"]


def test_serial_plays_are_one_phase() -> None:
    tally, _ = fed(play("One", 0), *task("x", 0), result("runner_on_ok", "x", 1, res={}), play("One", 2, "p1_2"))
    assert [phase.name for phase in tally.phases] == ["One"]


def test_the_region_names_phase_task_hosts_and_seconds() -> None:
    retry = result("runner_retry", "wait", 7, res={"attempts": 2, "retries": 10})
    tally, _ = fed(play("One", 0), *task("wait", 1), retry)
    lines = [str(line) for line in region(tally, START + 8, 100).renderables]
    assert "One  00:08  ok 0 changed 0 failed 0" in lines[0]
    assert lines[1] == "  wait  hosts 0/1  7 s  retry 2 of 10"
    assert all(len(line) <= 30 for line in map(str, region(tally, START + 8, 30).renderables))


def test_tail_says_what_it_left_out() -> None:
    text = "\n".join(map(str, range(30)))
    assert tail(text, 3).splitlines() == ["... 27 lines before ...", "27", "28", "29"]
    assert tail("a\nb", 3) == "a\nb"


def test_a_failure_without_a_message_shows_what_there_is() -> None:
    assert "'x'" in failure_text({"odd": "'x'"})


KINDS = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable", "runner_on_skipped")


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("abc"), st.booleans())))
def test_every_result_is_dispatched_exactly_once(outcomes: list[tuple[str, str, bool]]) -> None:
    events = [
        result(kind, f"t{n}", n, host, ignore_errors=ignored and kind == "runner_on_failed", res={"msg": "m"})
        for n, (kind, host, ignored) in enumerate(outcomes)
    ]
    tally, _ = fed(play("One", 0), *events, event("playbook_on_stats", 99))
    assert sum(counts.dispatched for counts in tally.counts.values()) == len(outcomes)
    assert sum(len(task.done) for task in tally.tasks) == len(outcomes)
