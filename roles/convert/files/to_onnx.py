"""A folder with safetensors becomes ONNX: by Optimum's exporters, or by torch's own for a model without a cache."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module
from typing import Any

from common import INPUT, OUTPUT, Unusable, copy_beside, note_versions

BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip


def by_optimum(task: str, opset: int, dtype: str) -> None:
    """Run `optimum-cli export onnx`. Raises Unusable where it fails."""
    words = ["export", "onnx", "--model", str(INPUT), "--task", task, "--opset", str(opset), "--framework", "pt"]
    if dtype != "float32":
        words += ["--dtype", {"float16": "fp16", "bfloat16": "bf16"}[dtype]]
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", *words, str(OUTPUT)]
    print("+", *command, flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise Unusable(f"optimum-cli ended with {status}")


def by_torch(opset: int, dtype: str) -> None:
    """Export `input_ids, attention_mask -> logits`; batch and length stay free."""
    torch, transformers = import_module("torch"), import_module("transformers")

    class Logits(torch.nn.Module):  # type: ignore[misc]  # a base class of the image's
        """The model with tensors only on both sides."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            """Return the logits of every token."""
            return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits

    model = transformers.AutoModelForCausalLM.from_pretrained(
        INPUT, dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True
    )
    ids = torch.arange(1, 13, dtype=torch.int64).reshape(2, 6)
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=4096)
    free = {0: batch, 1: length}
    with torch.no_grad():
        torch.onnx.export(
            Logits(model).eval(),
            (ids, torch.ones_like(ids)),
            str(OUTPUT / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            opset_version=opset,
            dynamo=True,
            external_data=True,
        )


def main() -> None:
    """Export, and put the tokenizer beside it."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--exporter", choices=["optimum", "torch"], required=True)
    parser.add_argument("--task", default="text-generation-with-past")
    parser.add_argument("--opset", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], required=True)
    options = parser.parse_args()
    note_versions(["optimum", "optimum-onnx", "transformers", "torch", "onnx", "onnxscript"])
    if options.exporter == "optimum":
        by_optimum(options.task, options.opset, options.dtype)
    else:
        by_torch(options.opset, options.dtype)
    copy_beside(BESIDE)


if __name__ == "__main__":
    main()
