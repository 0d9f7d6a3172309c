"""Reads the flags of `vllm serve` out of an unpacked vLLM, without importing it, for planner/data/vllm_flags.json.

    python -m planner.extract_vllm_flags 0.32 FOLDER_THAT_HOLDS_vllm/

Prints {version: {flag: "switch" | "value"}}; a switch also has its --no- form.
The data file's `removed` is kept by hand.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

_PARSERS = ("engine/arg_utils.py", "entrypoints/launchers/cli_args.py", "entrypoints/cli/serve.py")
_FRONTEND_CLASSES = ("BaseFrontendArgs", "FrontendArgs")


def switches(trees: list[ast.Module]) -> dict[str, bool]:
    """Return for each annotated class field whether it is a boolean (bool, or bool and None)."""
    result: dict[str, bool] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                parts = {part.strip() for part in ast.unparse(node.annotation).split("|")}
                result[node.target.id] = "bool" in parts and parts <= {"bool", "None"}
    return result


def arguments(tree: ast.Module) -> Iterator[tuple[str, str | None, str]]:
    """Yield (flag, config field or None, action text) of every add_argument call that has a long flag."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr != "add_argument":
            continue
        words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        field = next(
            (
                part.slice.value
                for keyword in node.keywords
                if keyword.arg is None
                for part in ast.walk(keyword.value)
                if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant)
            ),
            None,
        )
        action = next((ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "action"), "")
        for word in words:
            if word.startswith("--"):
                yield word, field if isinstance(field, str) else None, action


def frontend_fields(tree: ast.Module) -> Iterator[str]:
    """Yield the fields of the front end's classes, each of which becomes a flag."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in _FRONTEND_CLASSES:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id


def extract(folder: Path) -> dict[str, str]:
    """Return {flag without dashes: "switch" | "value"} of the vLLM package in this folder."""
    parsers = [ast.parse((folder / name).read_text()) for name in _PARSERS]
    configs = [ast.parse(path.read_text()) for path in sorted((folder / "config").glob("*.py"))]
    boolean = switches([*configs, *parsers])
    flags: dict[str, str] = {}
    for tree in parsers:
        for flag, field, action in arguments(tree):
            is_switch = boolean.get(field, False) if field else "store_true" in action or "Boolean" in action
            flags[flag.lstrip("-").replace("_", "-")] = "switch" if is_switch else "value"
    for field in frontend_fields(parsers[1]):
        flags[field.replace("_", "-")] = "switch" if boolean.get(field, False) else "value"
    return dict(sorted(flags.items()))


if __name__ == "__main__":
    print(json.dumps({sys.argv[1]: extract(Path(sys.argv[2]))}, indent=1))
