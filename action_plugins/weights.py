"""Action of the module `weights`: runs it, and meanwhile says how far each host is, at least every five seconds.

The module writes its progress to a file on the host, which is read over a connection of its own. A run that takes less
than five seconds costs nothing more. While another run holds the store, its progress is what is shown.
"""

from __future__ import annotations

import copy
import json
import shlex
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.utils.display import Display

sys.path.append(str(Path(__file__).resolve().parents[1]))

from action_plugins import lock_wait

# Seconds from one look to the next, however long a look takes. A line comes when its look ends: this leaves a second by
# which one may take longer than the one before until two lines are more than five seconds apart.
INTERVAL = 4.0
STALE = 5  # seconds
DEFAULT_FILE = "/var/lib/redoubt/progress/weights.json"
UNITS = ("B", "kB", "MB", "GB", "TB")


class ActionModule(lock_wait.ActionModule):
    """Runs the module and shows its progress."""

    interval = INTERVAL
    clock = staticmethod(time.monotonic)
    what = "weights"
    default_file = DEFAULT_FILE

    def line(self, document: Mapping[str, Any]) -> str:
        """Say how far a run is."""
        return line(document)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the host; its result is the module's."""
        host = str((task_vars or {}).get("inventory_hostname", "?"))
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=[host, ended], daemon=True)
        watcher.start()
        try:
            return super().run(tmp, task_vars)
        finally:
            ended.set()
            watcher.join(self.interval)

    def _watch(self, host: str, ended: threading.Event) -> None:
        path = str(self._task.args.get("progress_file") or self.default_file)
        connection = None
        due = self.clock() + self.interval
        while not ended.wait(max(0.0, due - self.clock())):
            # After a look that took longer than the interval the next one comes at once, and none is made up for.
            due = max(due, self.clock()) + self.interval
            try:
                # A copy: the module holds the first one until it ends.
                connection = connection or copy.copy(self._connection)
                status, output, _ = connection.exec_command(f"date +%s && cat {shlex.quote(path)}", sudoable=False)
                now, _, text = output.partition(b"\n")
                document = json.loads(text) if status == 0 else {}
            except Exception as error:  # the display must never end a deployment
                Display().vvv(f"no progress of {self.what} on {host}: {error}")
                continue
            # The module writes every second; a file that is older is what a killed run left.
            if document and not document.get("finished") and int(now) - document["updated"] <= STALE:
                Display().display(f"{self.what} on {host}: {self.line(document)}")


def line(document: Mapping[str, Any]) -> str:
    """Say how far a run is: phase, bytes, rate, time left, and the file that came last."""
    done, total = document["done_bytes"], document["total_bytes"]
    parts = [phase] if (phase := document.get("phase")) else []
    parts += [f"{size(done)} of {size(max(total, done))}", f"{size(document['bytes_per_second'])}/s"]
    if document.get("seconds_left") is not None:
        parts.append(f"{clock(document['seconds_left'])} left")
    return ", ".join(parts) + f" ({document['item']})"


def size(count: float) -> str:
    """Return bytes in a unit that fits: 1536000000 gives '1.5 GB'."""
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {UNITS[-1]}"


def clock(seconds: float) -> str:
    """Return m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
