"""A folder with safetensors becomes one with quantized weights (compressed-tensors), by llm-compressor's `oneshot`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from common import CALIBRATION, INPUT, OUTPUT, Unusable, copy_beside, note_versions

BESIDE = ("generation_config.json", "chat_template.jinja", "tokenizer.model", "preprocessor_config.json")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options; the scheme says whether data is needed."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--method", choices=["fp8", "awq", "gptq"], required=True)
    parser.add_argument("--scheme", required=True)
    parser.add_argument("--ignore", nargs="*", default=[])
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def texts(most: int) -> list[dict[str, Any]]:
    """Return the first lines of the calibration data (*.jsonl, each {"text": …} or {"messages": […]}).

    Raises Unusable where there are too few, or one that is neither.
    """
    found: list[dict[str, Any]] = []
    for number, row in enumerate(_rows(), 1):
        if not isinstance(row, dict) or not (isinstance(row.get("text"), str) or isinstance(row.get("messages"), list)):
            raise Unusable(f"line {number} of the calibration data has neither `text` nor `messages`")
        found.append(row)
        if len(found) == most:
            return found
    raise Unusable(f"the calibration data has {len(found)} lines, and {most} samples are asked for")


def _rows() -> Iterator[object]:
    for path in sorted(CALIBRATION.rglob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)


def recipe(options: argparse.Namespace) -> Any:
    """Return llm-compressor's modifiers; where they live moved between its versions."""
    arguments = {"targets": ["Linear"], "scheme": options.scheme, "ignore": options.ignore}
    quantization = import_module("llmcompressor.modifiers.quantization")
    if options.method == "gptq":
        place = quantization if hasattr(quantization, "GPTQModifier") else import_module("llmcompressor.modifiers.gptq")
        return place.GPTQModifier(**arguments)
    if options.method == "fp8":
        return quantization.QuantizationModifier(**arguments)
    try:
        smoothing = import_module("llmcompressor.modifiers.transform.awq")
    except ImportError:
        return import_module("llmcompressor.modifiers.awq").AWQModifier(**arguments)
    return [smoothing.AWQModifier(), quantization.QuantizationModifier(**arguments)]


def dataset(options: argparse.Namespace, tokenizer: Any) -> Any:
    """Return the calibration data as token ids, one line a batch, in the order of the file."""
    torch = import_module("torch")

    def plain(row: dict[str, Any]) -> str:
        if "text" in row:
            return str(row["text"])
        return str(tokenizer.apply_chat_template(row["messages"], tokenize=False))

    rows = [
        tokenizer(
            plain(row),
            truncation=True,
            max_length=options.length,
            add_special_tokens="text" in row,
            return_tensors="pt",
        )
        for row in texts(options.samples)
    ]
    return torch.utils.data.DataLoader([dict(row) for row in rows], batch_size=None)


def main() -> None:
    """Quantize and save."""
    options = parse()
    note_versions(["llmcompressor", "compressed-tensors", "transformers", "torch", "safetensors"])
    if options.calibrate:
        texts(options.samples)  # before hours of work
    compressor, transformers = import_module("llmcompressor"), import_module("transformers")
    transformers.set_seed(options.seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(INPUT, dtype="auto", local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(INPUT, local_files_only=True)
    more: dict[str, Any] = {}
    if options.calibrate:
        more = {
            "dataset": dataset(options, tokenizer),
            "num_calibration_samples": options.samples,
            "max_seq_length": options.length,
        }
    compressor.oneshot(model=model, recipe=recipe(options), **more)
    model.save_pretrained(OUTPUT, save_compressed=True)
    tokenizer.save_pretrained(OUTPUT)
    copy_beside(BESIDE)


if __name__ == "__main__":
    main()
