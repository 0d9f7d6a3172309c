"""What the files of a model say of themselves: whether an engine could load them, and figures for the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .gguf import read_gguf
from .manifest import FileEntry, Model
from .onnx import read_onnx
from .safetensors import BadFile, Tensor, index_problems, read_safetensors

INDEX = ".safetensors.index.json"
SHARD = re.compile(r"(?P<stem>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.gguf)")
MOST_JSON = 64 << 20
GEOMETRY = (
    "architectures", "model_type", "torch_dtype", "dtype", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings",
    "sliding_window", "kv_lora_rank", "qk_rope_head_dim", "num_experts", "num_local_experts", "n_routed_experts",
    "num_experts_per_tok", "quantization_config", "tie_word_embeddings",
)  # fmt: skip
GGUF_FIGURES = re.compile(
    r"general\.(architecture|name|file_type)"
    r"|[a-z0-9_-]+\.(context_length|block_count|embedding_length|attention\.head_count(_kv)?)"
)


def inspect(model: Model, place: Callable[[FileEntry], Path]) -> tuple[dict[str, Any], list[str]]:
    """Return facts of a model's files, which `place` finds, and why an engine could not load them.

    Facts are {tensors, tensor_bytes, dtypes: {name: bytes}, config, gguf, code}. Raises OSError.
    """
    facts: dict[str, Any] = {"tensors": 0, "tensor_bytes": 0, "dtypes": {}, "config": {}, "gguf": {}, "code": []}
    problems: list[str] = []
    shards: dict[str, dict[str, Tensor]] = {}
    paths = {entry.path for entry in model.files}
    for entry in model.files:
        try:
            if entry.path.endswith(".safetensors"):
                shards[entry.path] = read_safetensors(place(entry))
                for tensor in shards[entry.path].values():
                    _count(facts, tensor.dtype, tensor.size, 1)
            elif entry.path.endswith(".gguf"):
                found = read_gguf(place(entry))
                facts["tensors"] += found.tensors
                for name, size in found.types.items():
                    _count(facts, name, size, 0)
                figures = {name: value for name, value in found.metadata.items() if GGUF_FIGURES.fullmatch(name)}
                facts["gguf"][entry.path] = figures
            elif entry.path.endswith(".onnx"):
                graph = read_onnx(place(entry))
                facts["tensors"] += graph.tensors
                problems += _external(entry.path, graph.external, model)
            elif entry.path == "config.json":
                facts["config"], auto_map = _config(place(entry), entry)
                facts["code"] += auto_map
            problems += _lacking_shards(entry.path, paths)
        except BadFile as error:
            problems.append(f"{entry.path}: {error}")
    for entry in model.files:
        if entry.path.endswith(INDEX):
            problems += _index(entry, place(entry), shards)
    facts["code"] = sorted({*facts["code"], *(path for path in paths if path.endswith(".py"))})
    return facts, problems


def _count(facts: dict[str, Any], dtype: str, size: int, tensors: int) -> None:
    facts["tensors"] += tensors
    facts["tensor_bytes"] += size
    facts["dtypes"][dtype] = facts["dtypes"].get(dtype, 0) + size


def _lacking_shards(path: str, paths: set[str]) -> list[str]:
    """Say, for the first shard of a series, which others are not there."""
    match = SHARD.fullmatch(path)
    if match is None or match["number"] != "00001":
        return []
    count = int(match["count"])
    wanted = [f"{match['stem']}{number:05}-of-{match['count']}{match['suffix']}" for number in range(1, count + 1)]
    lacking = [name for name in wanted if name not in paths]
    return [f"{path}: is one of {count}, and {name} is not among the model's files" for name in lacking[:3]]


def _external(path: str, needed: Mapping[str, int], model: Model) -> list[str]:
    """Say which files a graph's tensors lie in that are not among the model's, or too short."""
    folder = path.rpartition("/")[0]
    sizes = {entry.path: entry.size for entry in model.files}
    found = []
    for name, size in sorted(needed.items()):
        beside = f"{folder}/{name}" if folder else name
        if beside not in sizes:
            found.append(f"{path}: its tensors lie in {name}, which is not among the model's files")
        elif sizes[beside] < size:
            found.append(f"{path}: its tensors need {size} bytes of {name}, which has {sizes[beside]}")
    return found


def _json(path: Path, entry: FileEntry) -> Any:
    if entry.size > MOST_JSON:
        raise BadFile(f"has {entry.size} bytes, too many for what it should be")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadFile(f"is not JSON ({error})") from None


def _config(path: Path, entry: FileEntry) -> tuple[dict[str, Any], list[str]]:
    """Return the geometry of a model, and the code that its configuration asks to run."""
    document = _json(path, entry)
    if not isinstance(document, dict):
        raise BadFile("is not a JSON object")
    inner = document.get("text_config")
    geometry = {name: document[name] for name in GEOMETRY if name in document}
    if isinstance(inner, dict):
        geometry["text_config"] = {name: inner[name] for name in GEOMETRY if name in inner}
    auto_map = document.get("auto_map")
    classes = auto_map.values() if isinstance(auto_map, dict) else ()
    return geometry, [f"config.json: {name}" for name in classes if isinstance(name, str)]


def _index(entry: FileEntry, path: Path, shards: dict[str, dict[str, Tensor]]) -> list[str]:
    folder = entry.path.rpartition("/")[0]
    beside = {
        name[len(folder) + 1 if folder else 0 :]: tensors
        for name, tensors in shards.items()
        if name.rpartition("/")[0] == folder
    }
    try:
        return [f"{entry.path}: {problem}" for problem in index_problems(_json(path, entry), beside)[:5]]
    except BadFile as error:
        return [f"{entry.path}: {error}"]
