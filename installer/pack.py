"""install.pyz: the installer and our shared code in one file that Python runs; the same tree gives the same bytes."""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

NAME = "install.pyz"
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
#: Parts of the installer that run on the far side; this file does not.
STEPS = ("__init__.py", "__main__.py", "machine.py", "steps.py")
START = "module_utils"


def content(root: Path) -> bytes:
    """Return the archive, made of the checkout at `root`. Raises OSError."""
    names = {f"installer/{name}" for name in STEPS} | _needed(root)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted({"__main__.py": "installer/__main__.py", **{name: name for name in names}}.items()):
            info = zipfile.ZipInfo(name[0], EPOCH)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, (root / name[1]).read_bytes())
    return SHEBANG + buffer.getvalue()


def write(out: Path, root: Path | None = None) -> dict[str, Any]:
    """Write install.pyz into the folder `out`; return {file, sha256, size}. Raises OSError."""
    data = content(root or Path(__file__).resolve().parents[1])
    (out / NAME).write_bytes(data)
    return {"file": NAME, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _needed(root: Path) -> set[str]:
    """The files of module_utils that the installer needs, directly or through each other."""
    found: set[str] = set()
    waiting = [root / "installer" / name for name in STEPS]
    while waiting:
        path = waiting.pop()
        for module in _imported(path, root):
            for candidate in (root / f"{module}.py", root / module / "__init__.py"):
                name = str(candidate.relative_to(root))
                if candidate.is_file() and name not in found:
                    found.add(name)
                    waiting.append(candidate)
    return found


def _imported(path: Path, root: Path) -> set[str]:
    """The places of what a file imports of our shared code, and the packages that they are in."""
    here = path.relative_to(root).parent
    places: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            base = _place(node, here)
            if base is not None:
                places |= {base, *(f"{base}/{alias.name}" for alias in node.names)}
    return places | {str(parent) for place in places for parent in Path(place).parents if str(parent) != "."}


def _place(node: ast.ImportFrom, here: Path) -> str | None:
    """The path of the module that is imported from, without a suffix; None where it is not ours."""
    words = (node.module or "").split(".")
    if node.level:
        base = here
        for _ in range(node.level - 1):
            base = base.parent
        return str(base.joinpath(*filter(None, words)))
    if words[:2] == ["ansible", "module_utils"] and len(words) > 1:
        return str(Path(START).joinpath(*words[2:]))
    return str(Path(*words)) if words[0] == "installer" else None
