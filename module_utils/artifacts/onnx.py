"""ONNX files, walked without loading a tensor: whole, and with the files that their tensors lie in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .safetensors import BadFile

# Numbers of fields in ONNX's own description (onnx.proto): of a model, its graph, a tensor, a named text.
IR_VERSION, OPSETS, GRAPH = 1, 8, 7
NODE, INITIALIZER = 1, 5
EXTERNAL_DATA = 13
KEY, VALUE = 1, 2
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
LONGEST_TEXT = 4096


@dataclass
class Onnx:
    """What a file says: version, numbers of nodes and tensors, and the bytes that it needs of other files by name."""

    version: int = 0
    nodes: int = 0
    tensors: int = 0
    external: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, its value (of a number), its bytes from `start` to `end` (of the others)."""

    number: int
    value: int
    start: int
    end: int


def read_onnx(path: Path) -> Onnx:
    """Return what a file says of itself. Raises BadFile, OSError."""
    found = Onnx()
    graphs = 0
    with path.open("rb") as stream:
        for part in _fields(stream, 0, path.stat().st_size):
            if part.number == IR_VERSION:
                found.version = part.value
            elif part.number == GRAPH:
                graphs += 1
                _read_graph(stream, part, found)
    if not found.version or graphs != 1:
        raise BadFile("is not an ONNX model: it lacks a version or a graph")
    if not found.nodes:
        raise BadFile("its graph has no operation")
    return found


def _read_graph(stream: BinaryIO, graph: _Field, found: Onnx) -> None:
    for part in _fields(stream, graph.start, graph.end):
        if part.number == NODE:
            found.nodes += 1
        elif part.number == INITIALIZER:
            found.tensors += 1
            words = {}
            for inner in _fields(stream, part.start, part.end):
                if inner.number == EXTERNAL_DATA:
                    pair = {item.number: _text(stream, item) for item in _fields(stream, inner.start, inner.end)}
                    words[pair.get(KEY, "")] = pair.get(VALUE, "")
            if "location" in words:
                _note_external(words, found)


def _note_external(words: dict[str, str], found: Onnx) -> None:
    try:
        end = int(words.get("offset") or 0) + int(words.get("length") or 0)
    except ValueError:
        raise BadFile(f"says that a tensor lies at {words}, which is no place") from None
    name = words["location"]
    found.external[name] = max(end, found.external.get(name, 0))


def _fields(stream: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields between two places of the file. Raises BadFile where they do not fit exactly."""
    here = start
    while here < end:
        stream.seek(here)
        tag, here = _varint(stream, here, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise BadFile(f"byte {here} begins no field of an ONNX file")
        if kind == VARINT:
            value, here = _varint(stream, here, end)
            yield _Field(number, value, here, here)
            continue
        if kind == LENGTH:
            size, here = _varint(stream, here, end)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
        else:
            raise BadFile(f"byte {here} begins no field of an ONNX file")
        if size > end - here:
            raise BadFile(f"needs {size} bytes at byte {here}, and has {end - here}")
        yield _Field(number, 0, here, here + size)
        here += size


def _varint(stream: BinaryIO, here: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1) if here < end else b""
        if not byte:
            raise BadFile(f"ends in the middle of a figure, at byte {here}")
        here += 1
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value, here
    raise BadFile(f"has a figure without an end at byte {here}")


def _text(stream: BinaryIO, part: _Field) -> str:
    if part.end - part.start > LONGEST_TEXT:
        raise BadFile(f"has a text of {part.end - part.start} bytes where a name should be")
    stream.seek(part.start)
    return stream.read(part.end - part.start).decode(errors="replace")
