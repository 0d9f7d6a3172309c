"""A GGUF file becomes a folder with safetensors, configuration, tokenizer and chat template."""

from __future__ import annotations

import argparse
from importlib import import_module

from common import INPUT, OUTPUT, note_versions, only


def main() -> None:
    """Dequantize the model and save it."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--file", default="*.gguf")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], required=True)
    parser.add_argument("--shard-size", default="5GB")
    options = parser.parse_args()
    source = only(options.file)
    note_versions(["transformers", "torch", "safetensors", "gguf", "accelerate", "tokenizers"])
    torch, transformers = import_module("torch"), import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        INPUT,
        gguf_file=source.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=getattr(torch, options.dtype),
    )
    model.save_pretrained(OUTPUT, max_shard_size=options.shard_size)
    transformers.AutoTokenizer.from_pretrained(INPUT, gguf_file=source.name).save_pretrained(OUTPUT)


if __name__ == "__main__":
    main()
