"""Tests that wait for a task by its name wait for one that exists: a renamed task would cost a run of minutes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
QUOTED = re.compile(r'"(?P<role>[a-z_]+) : (?P<task>[A-Za-z][^"={]*)"')


def missing(text: str, roles: Path) -> list[str]:
    """What of `role : task` in a test's text no role under `roles` has."""
    wanted = [(match["role"], match["task"]) for match in QUOTED.finditer(text)]
    return [f"{role} : {task}" for role, task in wanted if (roles / role).is_dir() and task not in _tasks(roles / role)]


def _tasks(role: Path) -> set[str]:
    files = [path for path in role.rglob("*.yml") if path.parent.name in ("tasks", "handlers")]
    return {str(name) for path in files for name in _names(yaml.safe_load(path.read_text()))}


def _names(tasks: object) -> list[object]:
    items = [item for item in tasks if isinstance(item, dict)] if isinstance(tasks, list) else []
    below = [name for item in items for key in ("block", "rescue", "always") for name in _names(item.get(key))]
    return [item["name"] for item in items if "name" in item] + below


def test_each_task_that_a_test_waits_for_exists() -> None:
    texts = {path: path.read_text() for path in (REPOSITORY / "tests").rglob("*.py") if path.parent.name != "lint"}
    texts |= {path: path.read_text() for path in (REPOSITORY / "molecule").rglob("*.py")}
    found = {str(path.relative_to(REPOSITORY)): missing(text, REPOSITORY / "roles") for path, text in texts.items()}
    assert {path: names for path, names in found.items() if names} == {}
    assert sum(len(QUOTED.findall(text)) for text in texts.values()) > 5, "the tests wait for no task: look elsewhere"


def test_a_renamed_task_is_named(tmp_path: Path) -> None:
    tasks = tmp_path / "common/tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text('- name: Outer\n  block:\n    - name: "packages | Install"\n')
    assert missing('("common : packages | Install", "common : Outer", "nobody : Knows")', tmp_path) == []
    assert missing('"common : Install"', tmp_path) == ["common : Install"]
