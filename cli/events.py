"""Ansible's events, as ansible-runner gives them, added up to phases, tasks and counts. No input or output here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cli.failures import Failure, failure_text, item_label, plain
from cli.records import HostCounts, PhaseRecord, TaskRecord

Event = Mapping[str, Any]

#: Actions that the control host answers alone: they are dispatched, but no module runs on a host.
CONTROLLER_ONLY = frozenset(
    (
        *("add_host", "assert", "debug", "fail", "group_by", "include_vars", "meta", "pause", "set_fact"),
        *("include_role", "include_tasks", "import_playbook", "import_role", "import_tasks", "set_stats"),
        "validate_argument_spec",
    )
)
RESULTS = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}
OUTPUT = frozenset(("verbose", "debug", "deprecated", "warning", "system_warning", "error"))
NOISE = re.compile(r"^Playbook run took \d+ days")  # the timer callback; this program has its own clock


@dataclass(frozen=True)
class TaskDone:
    """A task has its last result."""

    elapsed: float
    task: TaskRecord


@dataclass(frozen=True)
class PhaseDone:
    """A play is over."""

    phase: PhaseRecord


@dataclass(frozen=True)
class Said:
    """Text for the person: kind is message (a debug task), diff, or one of Ansible's own kinds of output."""

    kind: str
    text: str
    host: str = ""


Notice = TaskDone | PhaseDone | Failure | Said


class Tally:
    """Takes events in order; knows phases, tasks, counts, failures so far; says what is worth showing."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.last = start
        self.phases: list[PhaseRecord] = []
        self.tasks: list[TaskRecord] = []
        self.counts: dict[str, HostCounts] = {}
        self.failures: list[Failure] = []
        self.open: dict[str, TaskRecord] = {}
        self.hosts: set[str] = set()  # of the running play, without those that failed
        self._play_ids: set[str] = set()
        self._items: dict[str, list[Failure]] = {}  # failed loop items by host

    @property
    def phase(self) -> PhaseRecord | None:
        """The play that runs now, or the last one."""
        return self.phases[-1] if self.phases else None

    def feed(self, event: Event) -> list[Notice]:
        """Adds one event; what to show for it. Events of unknown kinds are passed over."""
        kind = str(event.get("event", ""))
        data: Mapping[str, Any] = event.get("event_data") or {}
        self.last = _time(event, self.last)
        if kind == "playbook_on_play_start":
            return self._play_start(data)
        if kind == "playbook_on_task_start":
            return self._task_start(data)
        if kind == "runner_on_start":
            self._task_of(data).started.add(str(data.get("host")))
        elif kind == "runner_retry":
            result = data.get("res") or {}
            self._task_of(data).retry = f"retry {result.get('attempts', '?')} of {result.get('retries', '?')}"
        elif kind in RESULTS:
            return self._result(RESULTS[kind], data)
        elif kind == "runner_item_on_failed":
            failure = self._failure(data, item=item_label(data.get("res") or {}) or "?")
            self._items.setdefault(failure.host, []).append(failure)  # until the task says whether it ignores it
        elif kind == "runner_item_on_ok" and _short(data) == "debug":
            return _message(data)
        elif kind == "runner_on_file_diff":
            text = _stdout(event)
            return [Said("diff", text, str(data.get("host", "")))] if text else []
        elif kind == "playbook_on_no_hosts_matched":
            return [Said("warning", "no host of the inventory matches this play")]
        elif kind == "playbook_on_stats":
            return self._stats(data)
        elif kind in OUTPUT:
            text = _stdout(event)
            return [Said(kind, text)] if text and not NOISE.match(text) else []
        return []

    def finish(self, now: float) -> list[Notice]:
        """Closes what is open; for a run that ended without its closing event, such as an interrupted one."""
        self.last = max(now, self.last)
        if self.phase and not self.phase.end:
            self.phase.complete = False
        return [*self._close_tasks(everything=True), *self._close_phase()]

    def document(self) -> dict[str, object]:
        """The content of timing.json, without the wall time."""
        return {
            "phases": [phase.document() for phase in self.phases],
            "tasks": [task.document() for task in self.tasks],
            "counts": {host: counts.document() for host, counts in sorted(self.counts.items())},
        }

    def _play_start(self, data: Mapping[str, Any]) -> list[Notice]:
        notices = [*self._close_tasks(everything=True)]
        ident = str(data.get("uuid", "")).split("_")[0]  # with `serial`, a play starts again as ID_2
        if ident in self._play_ids:
            return notices
        notices += self._close_phase()
        record = PhaseRecord(str(data.get("name", "")), self.last)
        self._play_ids.add(ident)
        self.phases.append(record)
        self.hosts = set()
        return notices

    def _task_start(self, data: Mapping[str, Any]) -> list[Notice]:
        notices = self._close_tasks(everything=False)
        self._task_of(data)
        return notices

    def _task_of(self, data: Mapping[str, Any]) -> TaskRecord:
        """The record of the task that an event is about; made when it is the first event of it."""
        ident = str(data.get("task_uuid") or data.get("uuid", "")).split("_")[0]
        if ident not in self.open:
            name = str(data.get("task") or data.get("name", ""))
            role = data.get("role")
            if role and name.startswith(f"{role} : "):
                name = name.removeprefix(f"{role} : ")
            phase = self.phases[-1].name if self.phases else ""
            label = f"{role}: {name}" if role else name
            self.open[ident] = TaskRecord(phase, label, _short(data), self.last, self.last)
        return self.open[ident]

    def _result(self, outcome: str, data: Mapping[str, Any]) -> list[Notice]:
        task, host = self._task_of(data), str(data.get("host"))
        result: Mapping[str, Any] = data.get("res") or {}
        counts = self.counts.setdefault(host, HostCounts())
        ignored = bool(data.get("ignore_errors"))
        task.done.add(host)
        task.end = self.last
        task.retry = ""
        name = "ignored" if ignored else outcome
        for record in (task, counts):
            setattr(record, name, getattr(record, name) + 1)
        if outcome in ("ok", "failed") and task.action not in CONTROLLER_ONLY:
            counts.module_tasks += 1
        if outcome == "ok" and result.get("changed"):
            task.changed += 1
            counts.changed += 1
        if outcome == "ok" and (task.action == "debug" or _speaks(task.action, result)) and "results" not in result:
            return _message(data)
        items = self._items.pop(host, [])
        if outcome not in ("failed", "unreachable"):
            self.hosts.add(host)
            return []
        if not ignored:
            self.hosts.discard(host)
        failures = [replace(item, ignored=ignored) for item in items] or [
            self._failure(data, unreachable=outcome == "unreachable")
        ]
        self.failures += failures
        return list(failures)

    def _failure(self, data: Mapping[str, Any], *, unreachable: bool = False, item: str | None = None) -> Failure:
        task = self._task_of(data)
        return Failure(
            host=str(data.get("host")),
            phase=task.phase,
            task=task.name,
            text=failure_text(data.get("res") or {}),
            item=item,
            path=data.get("task_path"),
            unreachable=unreachable,
            ignored=bool(data.get("ignore_errors")),
        )

    def _stats(self, data: Mapping[str, Any]) -> list[Notice]:
        """The closing event knows which failures were rescued later."""
        for host, number in (data.get("rescued") or {}).items():
            counts = self.counts.setdefault(host, HostCounts())
            counts.rescued = min(int(number), counts.failed)
            counts.failed -= counts.rescued
        return [*self._close_tasks(everything=True), *self._close_phase()]

    def _close_tasks(self, *, everything: bool) -> list[Notice]:
        closed: list[Notice] = []
        for ident, task in list(self.open.items()):
            if not everything and task.started - task.done:
                continue  # strategy `free`: some hosts are still at it
            del self.open[ident]
            if not task.started and not task.done:
                continue
            task.end = max(task.end, self.last if task.started - task.done else task.begin)
            self.tasks.append(task)
            phase = self.phases[-1] if self.phases else None
            if phase:
                phase.tasks += 1
                phase.changed += task.changed
                phase.failed += task.failed + task.unreachable
            closed.append(TaskDone(max(0.0, self.last - self.start), task))
        return closed

    def _close_phase(self) -> list[Notice]:
        phase = self.phase
        if phase is None or phase.end:
            return []
        phase.end = self.last
        return [PhaseDone(phase)]


def _time(event: Event, fallback: float) -> float:
    try:
        return datetime.fromisoformat(str(event["created"])).timestamp()
    except (KeyError, ValueError):
        return fallback


def _short(data: Mapping[str, Any]) -> str:
    action = str(data.get("resolved_action") or data.get("task_action") or "")
    return action.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def _speaks(action: str, result: Mapping[str, Any]) -> bool:
    """True for an assertion that holds and has something of its own to say."""
    return action == "assert" and result.get("msg") not in (None, "", "All assertions passed")


def _stdout(event: Event) -> str:
    return str(event.get("stdout") or "").replace("\r\n", "\n").strip("\r\n")


def _message(data: Mapping[str, Any]) -> list[Notice]:
    result: Mapping[str, Any] = data.get("res") or {}
    host = str(data.get("host", ""))
    for key in ("censored", "msg"):
        if key in result:
            return [Said("message", plain(result[key]), host)]
    hidden = ("changed", "failed", "item", "ansible_loop_var")
    shown = {key: value for key, value in result.items() if not key.startswith("_ansible") and key not in hidden}
    return [Said("message", "\n".join(f"{key}: {plain(value)}" for key, value in shown.items()), host)]
