"""Callback: a plain ansible-playbook run names every task that takes longer than five seconds while it works.

Ansible's own output names a task once and is then silent until it ends. The launcher shows the same on its own display.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: still_running
type: notification
short_description: Names tasks that take long while they work
description: After 5, 10, 20, 40, 80 seconds and then once a minute, a line names the task and its hosts.
requirements: [enabled in C(callbacks_enabled)]
"""

FIRST = 5.0  # seconds of silence before a task is named
LONGEST = 60.0  # seconds between two lines
NAMED = 3  # hosts
QUIET = "REDOUBT_DISPLAY"  # set by the launcher, which has a display of its own
TALKS_ITSELF = ("weights", "conversion")  # actions that show their own progress


@dataclass
class Running:
    """The tasks under way, by name and host; pure but for the lock."""

    since: dict[str, dict[str, float]] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, task: str, host: str, now: float) -> None:
        """Note that a host begins a task."""
        with self.lock:
            self.since.setdefault(task, {})[host] = now
            self.due.setdefault(task, now + FIRST)

    def end(self, task: str, host: str) -> None:
        """Note that a host is done with a task; unknown ones are none of ours."""
        with self.lock:
            hosts = self.since.get(task, {})
            hosts.pop(host, None)
            if not hosts:
                self.since.pop(task, None)
                self.due.pop(task, None)

    def lines(self, now: float) -> list[str]:
        """Return what is to be said at `now`, a line for each task; each time the next line is farther away."""
        with self.lock:
            said = []
            for task, hosts in self.since.items():
                if now < self.due[task]:
                    continue
                taken = now - min(hosts.values())
                self.due[task] = now + min(max(taken, FIRST), LONGEST)
                names = sorted(hosts)
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                said.append(f"still running on {', '.join(names[:NAMED])}{more}: {task} ({taken:.0f} s)")
            return said


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible publishes no types
    """Feeds Running, and says its lines from a thread."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "still_running"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.disabled = QUIET in os.environ  # Ansible then leaves it out
        self._running = Running()
        self._ended = threading.Event()
        self._speaker: threading.Thread | None = None

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Begin to count."""
        if task.action in TALKS_ITSELF:
            return
        self._running.start(task.get_name(), host.get_name(), time.monotonic())
        if self._speaker is None:
            self._speaker = threading.Thread(target=self._speak, daemon=True)
            self._speaker.start()

    def _ends(self, result: Any) -> None:
        self._running.end(result.task.get_name(), result.host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count no longer."""
        self._ends(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Count no longer."""
        self._ends(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Count no longer."""
        self._ends(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Count no longer."""
        self._ends(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Be silent: the run is over."""
        self._ended.set()

    def _speak(self) -> None:
        while not self._ended.wait(1):
            for line in self._running.lines(time.monotonic()):
                # Past Ansible's display and Python's buffers: their locks could be held by this thread while Ansible
                # makes a worker by fork, which would then wait for ever.
                os.write(1, f"{line}\n".encode())
