"""What roles install is what they wish: one task says both, where the lock finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.roles import REPOSITORY, all_roles, load, walk

INSTALLING = ("package_set",)
# Ansible's own ways to install. A role that used one would get round the lock.
OTHERS = tuple(
    f"{prefix}{name}"
    for name in ("apt", "dnf", "dnf5", "yum", "package", "pip", "deb822_repository", "apt_repository", "yum_repository")
    for prefix in ("", "ansible.builtin.")
)
# Tasks that may stand beside package_set in tasks/packages.yml: they need no host.
HOSTLESS = {"ansible.builtin.include_vars", "ansible.builtin.assert", *INSTALLING}
# A file whose bytes the role's own variable pins (URL and SHA-256); no repository has it.
PINNED_FILES = {"roles/nvidia_mig/tasks/install.yml"}
WISHES = "playbooks/tasks/wishes.yml"
KEYWORDS = {"name", "when", "vars", "register", "loop", "loop_control", "no_log", "become", "tags", "changed_when"}


def tasks_of(root: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """Yield each task file below the roles with each of its tasks."""
    for path in sorted(root.glob("roles/*/tasks/**/*.yml")):
        for task in walk(load(path) or []):
            yield path, task


def listed(root: Path) -> set[str]:
    """The roles whose tasks/packages.yml the lock's tasks include."""
    found: set[str] = set()
    for task in walk(load(root / WISHES) or []):
        included = task.get("ansible.builtin.include_role")
        if not isinstance(included, dict):
            continue
        assert included.get("tasks_from") == "packages", task.get("name")
        if "{{" not in str(included["name"]):
            found.add(str(included["name"]))
        rows = task.get("loop", [])
        assert isinstance(rows, list)
        found |= {str(row["name"] if isinstance(row, dict) else row) for row in rows}
    return found


def check_roles(root: Path) -> list[str]:
    """Return what would be installed without being wished, a line each."""
    problems = []
    wished = listed(root)
    for path, task in tasks_of(root):
        where = f"{path.relative_to(root)}: {task.get('name')}"
        role = path.relative_to(root).parts[1]
        if any(name in task for name in OTHERS) and str(path.relative_to(root)) not in PINNED_FILES:
            problems.append(f"{where}: installs beside package_set, and so beside the lock")
        if any(name in task for name in INSTALLING) and path.name != "packages.yml":
            problems.append(f"{where}: package_set stands in tasks/packages.yml only, where the lock finds it")
        if path.name != "packages.yml":
            continue
        if role not in wished:
            problems.append(f"{where}: {WISHES} does not include the role {role}, so no lock has its packages")
        others = set(task) - KEYWORDS - HOSTLESS
        if others:
            problems.append(f"{where}: {', '.join(sorted(others))} may need the host, which no lock can ask")
    return problems


def test_every_package_that_a_role_installs_is_wished() -> None:
    assert not (found := check_roles(REPOSITORY)), "\n".join(found)


def test_every_role_that_is_included_has_wishes() -> None:
    without = [name for name in listed(REPOSITORY) if not (REPOSITORY / "roles" / name / "tasks/packages.yml").exists()]
    assert not without
    assert listed(REPOSITORY) <= {role.name for role in all_roles()}


GOOD = """
- name: Install
  package_set: {packages: [curl]}
"""
INCLUDE = """
- name: Note
  ansible.builtin.include_role: {name: example, tasks_from: packages}
"""


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("roles/example/tasks/main.yml", GOOD, "where the lock finds it"),
        ("roles/example/tasks/main.yml", "- name: X\n  ansible.builtin.apt: {name: x}\n", "beside the lock"),
        ("roles/example/tasks/sub/a.yml", "- name: X\n  block:\n    - package: {name: x}\n", "beside the lock"),
        ("roles/other/tasks/packages.yml", GOOD, "does not include the role other"),
        ("roles/example/tasks/packages.yml", GOOD + "- name: X\n  ansible.builtin.stat: {path: /x}\n", "need the host"),
    ],
)
def test_a_package_beside_the_lock_is_found(tmp_path: Path, file: str, text: str, why: str) -> None:
    for name, content in {WISHES: INCLUDE, "roles/example/tasks/packages.yml": GOOD}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert check_roles(tmp_path) == []
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert [line for line in check_roles(tmp_path) if why in line]
