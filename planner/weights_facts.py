"""What the files of published models say of themselves, as a host's facts tell it, by published folder.

A model's configuration was written by whoever made the model: what is not of the form that it should have is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = frozenset(
    (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        *("head_dim", "vocab_size", "max_position_embeddings", "sliding_window", "kv_lora_rank", "qk_rope_head_dim"),
        *("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"),
    )
)
WORDS = frozenset(("model_type", "torch_dtype", "dtype"))


def tensor_bytes(raw: object) -> dict[str, int]:
    """Return the bytes of each folder's tensors."""
    return {str(path): size for path, size in _items(raw) if _is_count(size)}


def tensor_dtypes(raw: object) -> dict[str, dict[str, int]]:
    """Return the bytes of each folder's tensors by their type."""
    rows = (
        (str(path), {str(name): size for name, size in _items(row) if _is_count(size)}) for path, row in _items(raw)
    )
    return {path: row for path, row in rows if row}


def geometry(raw: object) -> dict[str, dict[str, Any]]:
    """Return the shape of each folder's model as its configuration tells it, `text_config` beneath it likewise."""
    rows = ((str(path), _geometry(row)) for path, row in _items(raw))
    return {path: row for path, row in rows if row}


def _geometry(raw: object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in _items(raw):
        if (name in COUNTS and _is_count(value)) or (name in WORDS and isinstance(value, str)):
            found[name] = value
        elif name == "architectures" and isinstance(value, list | tuple):
            found[name] = tuple(item for item in value if isinstance(item, str))
        elif name == "tie_word_embeddings" and isinstance(value, bool):
            found[name] = value
        elif name == "quantization_config" and isinstance(value, Mapping):
            found[name] = dict(value)
        elif name == "text_config" and (inner := _geometry(value)):
            found[name] = inner
    return found


def _items(raw: object) -> Any:
    return raw.items() if isinstance(raw, Mapping) else ()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
