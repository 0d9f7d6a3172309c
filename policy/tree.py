# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""A rendered Nginx configuration as a tree of directives (parsed by crossplane)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import crossplane


@dataclass
class Node:
    """One directive, with the enclosing one, so that inherited values can be looked up."""

    name: str
    args: list[str]
    line: int
    parent: Node | None
    children: list[Node] = field(default_factory=list)

    def find(self, name: str) -> list[Node]:
        """Direct children of that name."""
        return [child for child in self.children if child.name == name]

    def walk(self) -> Iterator[Node]:
        """All directives below, in order."""
        for child in self.children:
            yield child
            yield from child.walk()

    def effective(self, name: str) -> list[Node]:
        """The directives of that name in force here: own ones, else the nearest enclosing level's."""
        level: Node | None = self
        while level is not None:
            found = level.find(name)
            if found:
                return found
            level = level.parent
        return []

    def value(self, name: str) -> str:
        """All arguments of the (last) directive in force here, joined; empty when there is none."""
        found = self.effective(name)
        return " ".join(found[-1].args) if found else ""


def _tree(rows: list[dict[str, Any]], parent: Node) -> Node:
    for row in rows:
        if row["directive"] == "#":
            continue
        node = Node(row["directive"], list(row["args"]), row["line"], parent)
        parent.children.append(_tree(row.get("block", []), node))
    return parent


def parse(text: str) -> tuple[Node, list[str]]:
    """The configuration as a tree, and what the parser refused. Included files are not read."""
    # crossplane reads files only; the text holds no secret (keys are in an include).
    with tempfile.TemporaryDirectory(prefix="redoubt-policy-") as folder:
        file = Path(folder, "nginx.conf")
        file.write_text(text, encoding="utf-8")
        payload = crossplane.parse(str(file), single=True, comments=False)
    config = payload["config"][0]
    errors = [str(item["error"]).replace(str(file), "nginx.conf") for item in config["errors"]]
    return _tree(config["parsed"], Node("main", [], 0, None)), errors
