"""A folder with safetensors becomes TensorRT-LLM engines, one per rank; they run on this kind of GPU only."""

from __future__ import annotations

import argparse
from importlib import import_module

from common import INPUT, OUTPUT, SCRATCH, Unusable, copy_beside, note_versions

BESIDE = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "chat_template.jinja",
)  # fmt: skip


def main() -> None:
    """Build the engines and save them with the tokenizer."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    options = parser.parse_args()
    note_versions(["tensorrt_llm", "tensorrt", "transformers", "torch"])
    try:
        # Since PyTorch is its default backend, the one that builds engines lives here.
        build, api = import_module("tensorrt_llm._tensorrt_engine"), import_module("tensorrt_llm.llmapi")
    except ImportError as error:
        raise Unusable(
            f"this TensorRT-LLM builds no engines ({error}); name an image that does, or serve without"
        ) from None
    config = api.BuildConfig(max_batch_size=options.batch, max_seq_len=options.length, max_num_tokens=options.tokens)
    llm = build.LLM(
        model=str(INPUT),
        dtype=options.dtype,
        tensor_parallel_size=options.gpus,
        build_config=config,
        workspace=str(SCRATCH / "workspace"),
    )
    llm.save(str(OUTPUT))
    llm.shutdown()
    copy_beside(BESIDE)


if __name__ == "__main__":
    main()
