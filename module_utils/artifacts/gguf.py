"""Headers of GGUF files, read without loading a tensor."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .safetensors import BadFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST = 1 << 24  # items of a list, tensors: beyond this the file is not what it says
LONGEST_KEPT = 64  # items of a list that are kept; a tokenizer's words are not
SIMPLE = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, LIST = 8, 9
# ggml's types: name, elements per block, bytes per block. One that is not here is only checked for where it begins.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass
class Gguf:
    """What a file's header says: metadata (long lists as their length), number of tensors, bytes by type."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: int = 0
    types: dict[str, int] = field(default_factory=dict)


class _Reader:
    """Reads figures, and refuses to read behind the end."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    @property
    def here(self) -> int:
        return self._stream.tell()

    def data(self, count: int) -> bytes:
        if count > self._size - self.here:
            raise BadFile(f"its header needs {count} more bytes at byte {self.here}, the file has {self._size}")
        return self._stream.read(count)

    def skip(self, count: int) -> None:
        if count > self._size - self.here:
            raise BadFile(f"its header needs {count} more bytes at byte {self.here}, the file has {self._size}")
        self._stream.seek(count, 1)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.data(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.data(self.number("<Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in SIMPLE:
            return self.number(SIMPLE[kind])
        if kind == TEXT:
            return self.text()
        if kind != LIST:
            raise BadFile(f"its header holds a value of the unknown kind {kind} at byte {self.here}")
        inner, count = self.number("<I"), self.number("<Q")
        if count > MOST or inner == LIST:
            raise BadFile(f"its header holds an odd list at byte {self.here}")
        if count <= LONGEST_KEPT:
            return [self.value(inner) for _ in range(count)]
        if inner in SIMPLE:
            self.skip(count * struct.calcsize(SIMPLE[inner]))
        else:
            for _ in range(count):
                self.skip(self.number("<Q"))
        return f"{count} items"


def read_gguf(path: Path) -> Gguf:
    """Read a file's header and check that every tensor lies in the file. Raises BadFile, OSError."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        reader = _Reader(stream, size)
        if size < 24 or reader.data(4) != MAGIC:
            raise BadFile("does not begin as a GGUF file does")
        version = reader.number("<I")
        if version not in VERSIONS:
            raise BadFile(f"is of GGUF version {version}, known are {VERSIONS[0]} and {VERSIONS[1]}")
        found = Gguf(tensors=reader.number("<Q"))
        pairs = reader.number("<Q")
        if found.tensors > MOST or pairs > MOST:
            raise BadFile(f"says that it has {found.tensors} tensors and {pairs} values, more than any file has")
        for _ in range(pairs):
            name = reader.text()
            found.metadata[name] = reader.value(reader.number("<I"))
        ends: list[tuple[str, int, int]] = []
        for _ in range(found.tensors):
            ends.append(_tensor(reader, found))
        alignment = found.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise BadFile(f"its alignment is {alignment!r}")
        start = -(-reader.here // alignment) * alignment
        for name, offset, length in ends:
            if offset % alignment or start + offset + length > size:
                raise BadFile(f"tensor {name!r} ends at byte {start + offset + length}, the file has {size}")
    return found


def _tensor(reader: _Reader, found: Gguf) -> tuple[str, int, int]:
    name, dimensions = reader.text(), reader.number("<I")
    if dimensions > 8:
        raise BadFile(f"tensor {name!r} has {dimensions} dimensions")
    elements = 1
    for _ in range(dimensions):
        elements *= reader.number("<Q")
    kind, offset = reader.number("<I"), reader.number("<Q")
    type_name, block, block_bytes = TYPES.get(kind, (f"type {kind}", 0, 0))
    if block and elements % block:
        raise BadFile(f"tensor {name!r} of {type_name} has {elements} elements, not a multiple of {block}")
    length = elements // block * block_bytes if block else 0
    found.types[type_name] = found.types.get(type_name, 0) + length
    return name, offset, length
