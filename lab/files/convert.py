"""Turn a GGUF file into a Hugging Face folder: `convert.py FOLDER FILE.gguf TARGET`."""

import sys

import torch  # type: ignore[import-not-found]  # runs with the image's packages
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # type: ignore[import-not-found]  # the same


def main(folder: str, name: str, target: str) -> None:
    """Write the model's weights, configuration, tokenizer and chat template into ``target``."""
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=config, dtype=torch.bfloat16
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
