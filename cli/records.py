"""What a run added up to: counts by host, tasks and phases with seconds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class HostCounts:
    """How many results one host gave. `ok` includes `changed`, as in Ansible; `failed` excludes rescued and ignored."""

    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0
    rescued: int = 0
    ignored: int = 0
    module_tasks: int = 0

    @property
    def dispatched(self) -> int:
        """Every result callback of the host; includes count."""
        return self.ok + self.failed + self.unreachable + self.skipped + self.rescued + self.ignored

    def document(self) -> dict[str, int]:
        """The counts for a JSON document."""
        return {"dispatched": self.dispatched, **vars(self)}


@dataclass
class TaskRecord:
    """One task of one play. `started` and `done` hold host names; times are seconds of the Unix clock."""

    phase: str
    name: str
    action: str
    begin: float
    end: float = 0.0
    started: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0
    ignored: int = 0
    retry: str = ""

    @property
    def seconds(self) -> float:
        """From the start of the task to its last result."""
        return max(0.0, self.end - self.begin)

    def document(self) -> dict[str, object]:
        """The task for a JSON document."""
        return {
            "phase": self.phase,
            "task": self.name,
            "action": self.action,
            "hosts": len(self.done),
            "seconds": round(self.seconds, 3),
            "changed": self.changed,
            "skipped": self.skipped,
            "failed": self.failed + self.unreachable,
        }


@dataclass
class PhaseRecord:
    """One play."""

    name: str
    begin: float
    end: float = 0.0
    tasks: int = 0
    changed: int = 0
    failed: int = 0
    complete: bool = True

    @property
    def seconds(self) -> float:
        """From the start of the play to the start of the next."""
        return max(0.0, self.end - self.begin)

    def document(self) -> dict[str, object]:
        """The phase for a JSON document."""
        return {"name": self.name, "seconds": round(self.seconds, 3), "tasks": self.tasks, "complete": self.complete}
