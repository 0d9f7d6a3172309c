"""The roles as data: specification, defaults, tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ROLES = REPOSITORY / "roles"
_NESTING = ("block", "rescue", "always")


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's own tags taken as plain text."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    return loader.construct_scalar(node)


for _tag in ("!vault", "!unsafe"):
    _Loader.add_constructor(_tag, _text)


def load(path: Path) -> Any:
    """Return a YAML file's content, None for an empty one."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader with two text tags


@dataclass(frozen=True)
class Role:
    """One folder below roles/."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The entry point `main` of the argument specification; empty when there is none."""
        file = self.path / "meta/argument_specs.yml"
        main: dict[str, Any] = load(file)["argument_specs"]["main"] if file.exists() else {}
        return main

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The documented variables."""
        return dict(self.spec.get("options") or {})

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """All default values."""
        merged: dict[str, Any] = {}
        for file in sorted((self.path / "defaults").rglob("*.yml")):
            merged |= load(file) or {}
        return merged

    def tasks(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield every task and block with its file, handlers too."""
        for folder in ("tasks", "handlers"):
            for file in sorted((self.path / folder).rglob("*.yml")):
                for task in walk(load(file) or []):
                    yield file, task

    def text(self, *, without: tuple[str, ...] = ()) -> str:
        """Return the text of all the role's files except those in these folders or with these names."""
        parts = []
        for file in sorted(self.path.rglob("*")):
            inside = file.relative_to(self.path)
            if file.is_file() and inside.parts[0] not in without and "__pycache__" not in inside.parts:
                parts.append(file.read_text(encoding="utf-8", errors="replace"))
        return "\n".join(parts)


def walk(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield tasks and blocks, those inside blocks too."""
    for task in tasks:
        yield task
        for key in _NESTING:
            yield from walk(task.get(key) or [])


def all_roles() -> list[Role]:
    """Return every role."""
    return [Role(path) for path in sorted(ROLES.iterdir()) if (path / "tasks").is_dir()]


def playbooks() -> list[Path]:
    """Return every playbook and task file outside the roles."""
    return sorted([*REPOSITORY.glob("*.yml"), *(REPOSITORY / "playbooks").rglob("*.yml")])
