"""Imports of our shared code lead somewhere: to mypy all of `ansible` is unknown, so it cannot tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from tests.lint.test_repository import tracked
from tests.support.site import REPOSITORY

SHARED = "ansible.module_utils."
#: Shared code that Ansible itself brings.
ANSIBLES = {"ansible.module_utils.basic", "ansible.module_utils.common", "ansible.module_utils.facts"}


@lru_cache
def names(path: Path) -> frozenset[str]:
    """The names that a module has at its top."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return frozenset(found)


def missing(text: str, root: Path = REPOSITORY) -> Iterator[str]:
    """What a program takes from our shared code that is not there."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith(SHARED):
            continue
        module = str(node.module)
        if any(module == one or module.startswith(f"{one}.") for one in ANSIBLES):
            continue
        place = root / "module_utils" / Path(*module.removeprefix(SHARED).split("."))
        for alias in node.names:
            if place.is_dir() and (place / f"{alias.name}.py").is_file():
                continue
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            if not file.is_file() or alias.name not in names(file):
                yield f"{node.lineno}: from {module} import {alias.name}"


@pytest.mark.parametrize(
    "text",
    [
        "from ansible.module_utils.artifacts.errors import Refusall",
        "from ansible.module_utils.artifacts.mistakes import Refusal",
        "def later():\n    from ansible.module_utils.bundle import nothing",
    ],
)
def test_an_import_that_leads_nowhere_is_seen(text: str) -> None:
    assert list(missing(text))


def test_every_import_of_shared_code_leads_somewhere() -> None:
    found = []
    for path in tracked():
        if path.suffix == ".py":
            found += [f"{path.relative_to(REPOSITORY)}:{fault}" for fault in missing(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)
