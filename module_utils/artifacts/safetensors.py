"""Headers of safetensors files, checked without loading a tensor: what no engine can load is told before one tries."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000
# Bits per element. A type that is not here is only checked for its place in the file.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class BadFile(Exception):
    """A file that an engine could not load; the text is for the operator."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]
    size: int


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name. Raises BadFile, OSError."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise BadFile(f"has {size} bytes, too few for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, LONGEST_HEADER):
            raise BadFile(f"says that its header has {length} bytes, the file has {size}")
        raw = stream.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise BadFile("its header is not a JSON object")
    header.pop("__metadata__", None)
    return _tensors(header, size - 8 - length)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _tensors(header: Mapping[str, Any], room: int) -> dict[str, Tensor]:
    spans: list[tuple[int, int, str]] = []
    found: dict[str, Tensor] = {}
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise BadFile(f"tensor {name!r} lacks dtype, shape or data_offsets") from None
        numbers = (*shape, begin, end)
        if not isinstance(dtype, str) or any(
            not isinstance(item, int) or isinstance(item, bool) or item < 0 for item in numbers
        ):
            raise BadFile(f"tensor {name!r} has an odd dtype, shape or place")
        elements = 1
        for item in shape:
            elements *= item
        bits = BITS.get(dtype)
        if bits is not None and (end - begin) * 8 != elements * bits:
            raise BadFile(
                f"tensor {name!r} of {dtype} {list(shape)} needs {-(-elements * bits // 8)} bytes, it has {end - begin}"
            )
        spans.append((begin, end, name))
        found[name] = Tensor(dtype, shape, end - begin)
    here = 0
    for begin, end, name in sorted(spans):
        if begin != here or end < begin:
            raise BadFile(f"tensor {name!r} is at bytes {begin}-{end}, expected it at {here}: a gap or an overlap")
        here = end
    if here != room:
        raise BadFile(f"its tensors need {here} bytes, {room} are behind the header")
    return found


def index_problems(index: object, shards: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Compare an index ({"weight_map": {tensor: shard}}) with the shards beside it; return what is wrong."""
    weight_map = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(weight_map, Mapping) or not weight_map:
        return ["it has no weight_map"]
    missing = sorted({str(shard) for shard in weight_map.values() if shard not in shards})
    problems = [f"it names {shard}, which is not among the model's files" for shard in missing]
    problems += [
        f"it says that {shard} has tensor {name!r}, which it has not"
        for name, shard in weight_map.items()
        if shard in shards and name not in shards[shard]
    ]
    return problems
