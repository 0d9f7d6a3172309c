"""What runs on hosts runs with Python 3.9, the oldest of the supported systems: its syntax, and names that it has.

The hosts of the tests have newer ones, so nothing else would tell before a real host of RHEL 9 does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.lint.test_repository import tracked
from tests.support.site import REPOSITORY

OLDEST = (3, 9)
#: Programs that roles put on hosts. Those of roles/convert run in containers, with the Python of their image.
PROGRAMS = ("roles/monitoring/files/",)
#: Names that came with 3.10 or later, by module.
NEW_NAMES: Mapping[str, frozenset[str]] = {
    name: frozenset(listed.split())
    for name, listed in {
        "asyncio": "TaskGroup Runner timeout timeout_at",
        "builtins": "aiter anext ExceptionGroup BaseExceptionGroup EncodingWarning PythonFinalizationError",
        "contextlib": "aclosing chdir",
        "dataclasses": "KW_ONLY",
        "datetime": "UTC",
        "enum": "StrEnum ReprEnum EnumCheck FlagBoundary global_enum member nonmember property show_flag_values verify",
        "fcntl": "F_GETPIPE_SZ F_SETPIPE_SZ FICLONE",
        "hashlib": "file_digest",
        "importlib.metadata": "packages_distributions",
        "inspect": "get_annotations getmembers_static markcoroutinefunction",
        "itertools": "batched pairwise",
        "math": "cbrt exp2 fma sumprod",
        "operator": "call is_none is_not_none",
        "os": "EFD_CLOEXEC eventfd eventfd_read eventfd_write process_cpu_count splice",
        "sys": "exception orig_argv stdlib_module_names",
        "threading": "gettrace getprofile setprofile_all_threads settrace_all_threads",
        "types": "EllipsisType NoneType NotImplementedType UnionType get_original_bases",
        "typing": "assert_never assert_type Concatenate dataclass_transform get_overloads is_typeddict LiteralString"
        " Never NotRequired override ParamSpec ParamSpecArgs ParamSpecKwargs ReadOnly Required reveal_type Self"
        " TypeAlias TypeAliasType TypeGuard TypeIs TypeVarTuple Unpack",
    }.items()
}
NEW_MODULES = frozenset(("tomllib", "wsgiref.types", "compression", "annotationlib", "string.templatelib"))
#: Methods that no class of 3.9 has.
NEW_METHODS = frozenset(
    ("bit_count", "hardlink_to", "is_junction", "add_note", "with_segments", "getLevelNamesMapping")
)
#: Arguments that came later, by the function's last name.
NEW_ARGUMENTS: Mapping[str, frozenset[str]] = {
    name: frozenset(listed.split())
    for name, listed in {
        "bisect": "key",
        "bisect_left": "key",
        "bisect_right": "key",
        "insort": "key",
        "dataclass": "slots kw_only match_args weakref_slot",
        "field": "kw_only",
        "glob": "root_dir dir_fd case_sensitive include_hidden",
        "iglob": "root_dir dir_fd include_hidden",
        "map": "strict",
        "NamedTemporaryFile": "delete_on_close",
        "Popen": "process_group pipesize",
        "realpath": "strict",
        "relative_to": "walk_up",
        "rmtree": "onexc dir_fd",
        "run": "process_group pipesize",
        "TemporaryDirectory": "ignore_cleanup_errors delete",
        "zip": "strict",
    }.items()
}
#: These take an exception alone since 3.10 only; before, its type comes first.
OF_AN_EXCEPTION = frozenset(("format_exception", "format_exception_only", "print_exception"))


def on_hosts() -> list[Path]:
    """Return the files that hosts run."""
    return [
        path
        for path in tracked()
        if path.suffix == ".py"
        and str(path.relative_to(REPOSITORY)).startswith(("library/", "module_utils/", *PROGRAMS))
    ]


def too_new(text: str) -> Iterator[str]:
    """Say what of a program Python 3.9 lacks, with the line."""
    try:
        tree = ast.parse(text, feature_version=OLDEST)
    except SyntaxError as error:
        yield f"{error.lineno}: {error.msg}"
        return
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    modules: dict[str, str] = {}
    notes = {id(part) for node in ast.walk(tree) for note in _annotations(node) for part in ast.walk(note)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in ast.walk(tree):
        found = [*_imported(node), *_called(node)]
        if isinstance(node, ast.Attribute):
            module = modules.get(ast.unparse(node.value), "")
            if node.attr in NEW_NAMES.get(module, ()) or node.attr in NEW_METHODS:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NEW_NAMES["builtins"]:
            found.append(node.id)
        elif _is_union(node) and not (postponed and id(node) in notes):
            found.append(f"{ast.unparse(node)} is evaluated; write Optional or Union, or a tuple for isinstance")
        yield from (f"{getattr(node, 'lineno', 0)}: {what}" for what in found)


def _annotations(node: ast.AST) -> list[ast.expr]:
    given = [getattr(node, "returns", None), getattr(node, "annotation", None)]
    return [note for note in given if isinstance(note, ast.expr)]


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import {alias.name}" for alias in node.names if alias.name in NEW_MODULES)
    elif isinstance(node, ast.ImportFrom):
        new = NEW_NAMES.get(node.module or "", frozenset())
        yield from (
            f"from {node.module} import {alias.name}"
            for alias in node.names
            if alias.name in new or node.module in NEW_MODULES
        )


def _called(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    yield from (f"{name}({word.arg}=)" for word in node.keywords if word.arg in NEW_ARGUMENTS.get(name, ()))
    if name in OF_AN_EXCEPTION and len(node.args) + len(node.keywords) == 1:
        yield f"{name} of an exception alone"


def _is_union(node: ast.AST) -> bool:
    """Whether `X | Y` is about types: one side is None, a type of Python's, or begins like a class."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitOr):
        return False
    return any(_is_type(side) for side in (node.left, node.right))


def _is_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    types = ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "set", "str", "tuple", "type")
    return name in types or (name[:1].isupper() and not name.isupper())


@pytest.mark.parametrize(
    "text",
    [
        "match x:\n  case 1: pass",
        "try: pass\nexcept* OSError: pass",
        "type X = int",
        "from datetime import UTC, datetime",
        "import datetime as d\nd.UTC",
        "import tomllib",
        "from typing import Self",
        "from itertools import pairwise",
        "import itertools\nitertools.pairwise(x)",
        "import os.path\nos.path.realpath(x, strict=True)",
        "import os\nos.splice(1, 2, 3)",
        "zip(a, b, strict=True)",
        "@dataclass(frozen=True, slots=True)\nclass A: pass",
        "x.bit_count()",
        "hashlib.file_digest(f, 'sha256')\nimport hashlib",
        "raise ExceptionGroup('x', [])",
        "isinstance(x, int | str)",
        "from __future__ import annotations\nisinstance(x, int | str)",
        "from __future__ import annotations\nX = Callable[[int | None], int]",
        "from __future__ import annotations\nX = Path | None",
        "def f(x: int | None) -> None: pass",
        "def f() -> 'x' | None: pass",
        "x: int | None = None",
        "traceback.print_exception(error)",
    ],
)
def test_what_is_too_new_is_seen(text: str) -> None:
    assert list(too_new(text))


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations\ndef f(x: int | None, y: list[str | None]) -> Path | None: pass",
        "flags = os.O_RDWR | os.O_CREAT | CLOEXEC | 0",
        "a = b | {'x': 1} | dict(c)",
        "isinstance(x, (int, str))",
        "with open(a) as b, open(c) as d: pass",
        "'ab'.removeprefix('a')",
        "from typing import Optional\nX = Optional[int]",
        "subprocess.run(x, check=True)",
        "zip(a, b)",
    ],
)
def test_what_the_oldest_has_is_let_be(text: str) -> None:
    assert not list(too_new(text))


def test_what_hosts_run_is_no_newer_than_their_python() -> None:
    files = on_hosts()
    assert len(files) > 100
    found = [
        f"{path.relative_to(REPOSITORY)}:{fault}"
        for path in files
        for fault in too_new(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)
