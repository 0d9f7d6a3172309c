"""Writes the part of each role's README that comes from its argument specification, and the index docs/roles.md.

    python -m tests.lint.role_readme           says which files are stale, exit status 1 if any is
    python -m tests.lint.role_readme --write   brings them up to date

What stands outside the markers is written by hand and kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.lint.roles import REPOSITORY, Role, all_roles

BEGIN = "<!-- BEGIN GENERATED from meta/argument_specs.yml: python -m tests.lint.role_readme --write -->"
END = "<!-- END GENERATED -->"
INDEX = REPOSITORY / "docs/roles.md"
_MARKUP = re.compile(r"\b([BCEIMOPRUV])\(([^)]*)\)")


def prose(text: object) -> str:
    """Return Ansible's documentation markup as Markdown."""
    return _MARKUP.sub(lambda match: f"`{match[2]}`", " ".join(str(text).split()))


def paragraphs(description: object) -> list[str]:
    """Return a description, which may be one text or a list of them, as paragraphs."""
    items = description if isinstance(description, list) else [description]
    return [prose(item) for item in items if item]


def rows(options: Mapping[str, Mapping[str, Any]], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, type, default, meaning) of every option, nested ones below their parent."""
    for name, option in options.items():
        kind = option.get("type", "str")
        nested = f"{prefix}{name}" + ("[]" if kind == "list" else "")
        shown = f"list of {option['elements']}" if kind == "list" and option.get("elements") else kind
        if option.get("required"):
            default = "**required**"
        elif option.get("default") is None:
            default = ""
        else:
            default = f"`{_inline(option['default'])}`"
        meaning = " ".join(paragraphs(option.get("description")))
        if option.get("choices"):
            meaning += " One of: " + ", ".join(f"`{_inline(choice)}`" for choice in option["choices"]) + "."
        yield f"{prefix}{name}", shown, default, meaning
        if option.get("options"):
            yield from rows(option["options"], f"{nested}.")


def _inline(value: object) -> str:
    if isinstance(value, str):
        return value or '""'
    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)).split("\n...")[0].strip()


def block(role: Role) -> str:
    """Return the generated part of a role's README, markers included."""
    lines = [BEGIN, "", prose(role.spec.get("short_description", "")).rstrip(".") + ".", ""]
    for paragraph in paragraphs(role.spec.get("description")):
        lines += [f"- {paragraph}"]
    lines += ["", "## Variables", ""]
    if role.options:
        lines += ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
        for cells in rows(role.options):
            name, kind, default, meaning = (cell.replace("|", "\\|") for cell in cells)
            lines.append(f"| `{name}` | {kind} | {default} | {meaning} |")
    else:
        lines.append("None.")
    return "\n".join([*lines, "", END])


def readme(role: Role) -> str:
    """Return what a role's README should be: its own text around a fresh generated part."""
    path = role.path / "README.md"
    if not path.exists():
        return f"# {role.name}\n\n{block(role)}\n"
    text = path.read_text(encoding="utf-8")
    start, end = text.find(BEGIN.split(" from ", maxsplit=1)[0]), text.find(END)
    if start < 0 or end < start:
        return text.rstrip() + f"\n\n{block(role)}\n"
    return text[:start] + block(role) + text[end + len(END) :]


def index() -> str:
    """Return docs/roles.md."""
    lines = [
        "# Roles",
        "",
        "Each role does one thing on a host and can be used alone. Its README is generated from its argument",
        "specification, which Ansible checks at run time.",
        "",
        "| Role | What it does |",
        "|---|---|",
    ]
    for role in all_roles():
        summary = prose(role.spec.get("short_description", ""))
        lines.append(f"| [{role.name}](../roles/{role.name}/README.md) | {summary} |")
    return "\n".join(lines) + "\n"


def wanted() -> dict[Path, str]:
    """Return every generated file with the content that it should have."""
    return {role.path / "README.md": readme(role) for role in all_roles()} | {INDEX: index()}


def stale() -> list[Path]:
    """Return the files that are not as they should be."""
    return [
        path for path, content in wanted().items() if not path.exists() or path.read_text(encoding="utf-8") != content
    ]


def main(arguments: list[str]) -> int:
    """Write or check; return the exit status."""
    paths = stale()
    if "--write" in arguments:
        for path, content in wanted().items():
            if path in paths:
                path.parent.mkdir(exist_ok=True)
                path.write_text(content, encoding="utf-8")
                print(f"wrote {path.relative_to(REPOSITORY)}")
        return 0
    for path in paths:
        print(f"stale: {path.relative_to(REPOSITORY)} - run: python -m tests.lint.role_readme --write")
    return 1 if paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
