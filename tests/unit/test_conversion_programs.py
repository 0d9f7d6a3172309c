"""The programs that run in containers: what they understand, and what they refuse before hours of work.

Their real work, with the real libraries, is tested in molecule/convert.
"""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner.conversions import kinds
from tests.unit.test_conversion_plan import SMALLEST

PROGRAMS = Path(__file__).parents[2] / "roles/convert/files"
FOLDERS = ("INPUT", "CALIBRATION", "OUTPUT", "SCRATCH")
STUB = """
import pathlib, sys
words = sys.argv[1:]
target = words[words.index("--outfile") + 1] if "--outfile" in words else words[1]
pathlib.Path(target).write_text(" ".join(words))
"""


def run(folder: Path, code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program, or Python code that may import it, as the container does."""
    places = {f"CONVERSION_{name}": str(folder / name.lower()) for name in FOLDERS}
    for place in places.values():
        Path(place).mkdir(exist_ok=True)
    head = [sys.executable, str(PROGRAMS / code)] if code.endswith(".py") else [sys.executable, "-c", code]
    env = {**os.environ, **places, "PYTHONPATH": f"{PROGRAMS}:{folder}", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run([*head, *words], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.name)
def test_program_compiles(path: Path, tmp_path: Path) -> None:
    assert py_compile.compile(str(path), str(tmp_path / "x"), doraise=True)


@pytest.mark.parametrize("kind", SMALLEST)
def test_program_understands_its_own_command(kind: str, tmp_path: Path) -> None:
    program, *words = SMALLEST[kind][1]
    # Everything but the libraries is there, so it fails where it needs the first of them, and not earlier.
    (tmp_path / "input").mkdir()
    (tmp_path / "input/model.gguf").touch()
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/a.jsonl").write_text('{"text": "x"}\n' * 256)
    done = run(tmp_path, Path(program).name, *words)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert any(word in last for word in ("No module named", "has neither", "builds no engines", "optimum-cli ended")), (
        last
    )
    assert json.loads((tmp_path / "scratch/tools.json").read_text())["python"]


@pytest.mark.parametrize("kind", SMALLEST)
def test_program_refuses_words_that_it_does_not_know(kind: str, tmp_path: Path) -> None:
    program, *words = SMALLEST[kind][1]
    done = run(tmp_path, Path(program).name, *words, "--trust-remote-code")
    assert done.returncode == 2
    assert "--trust-remote-code" in done.stderr


def test_every_choice_of_the_plan_is_one_of_the_program(tmp_path: Path) -> None:
    for name, kind in kinds().items():
        for option, rule in kind["options"].items():
            if rule["kind"] != "choice" or option in ("scheme", "quantize", "task"):
                continue  # these are the libraries' own
            for value in rule["of"]:
                program, *words = SMALLEST[name][1]
                words[words.index(f"--{option}") + 1] = value
                done = run(tmp_path, Path(program).name, *words)
                assert done.returncode == 1, done.stderr  # 2 is argparse's refusal


def texts(folder: Path, lines: str, most: int) -> subprocess.CompletedProcess[str]:
    (folder / "calibration").mkdir()
    (folder / "calibration/a.jsonl").write_text(lines)
    return run(folder, f"import quantize; print(len(quantize.texts({most})))")


def test_calibration_data_is_taken_from_the_start(tmp_path: Path) -> None:
    lines = '{"text": "a"}\n\n{"messages": [{"role": "user", "content": "b"}]}\n{"text": "c"}\n'
    assert texts(tmp_path, lines, 2).stdout == "2\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"text": "a"}\n', "the calibration data has 1 lines, and 2 samples are asked for"),
        ('{"text": "a"}\n{"prompt": "b"}\n', "line 2 of the calibration data has neither `text` nor `messages`"),
        ('{"text": "a"}\n[]\n', "line 2 of the calibration data has neither"),
    ],
)
def test_bad_calibration_data_is_told(tmp_path: Path, lines: str, said: str) -> None:
    done = texts(tmp_path, lines, 2)
    assert done.returncode == 1
    assert f"conversion: {said}" in done.stderr


def gguf(folder: Path, *words: str, **places: Any) -> subprocess.CompletedProcess[str]:
    """Run to_gguf with a stub of llama.cpp's programs."""
    tools = folder / "app"
    tools.mkdir(exist_ok=True)
    (tools / "convert_hf_to_gguf.py").write_text(STUB)
    if places.get("quantizer", True):
        (tools / "llama-quantize").write_text(f"#!{sys.executable}\n{STUB}")
        (tools / "llama-quantize").chmod(0o755)
    code = f"import pathlib, to_gguf; to_gguf.PROGRAMS = pathlib.Path({str(tools)!r}); to_gguf.main()"
    return run(folder, code, *words)


def test_gguf_is_converted_and_then_quantized(tmp_path: Path) -> None:
    done = gguf(tmp_path, "--name", "x", "--type", "f16", "--quantize", "Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["x.Q4_K_M.gguf"]
    words = (tmp_path / "output/x.Q4_K_M.gguf").read_text().split()
    assert words == [f"{tmp_path}/scratch/x.f16.gguf", f"{tmp_path}/output/x.Q4_K_M.gguf", "Q4_K_M"]
    assert not (tmp_path / "scratch/x.f16.gguf").exists()


def test_gguf_needs_the_quantizer_before_it_converts(tmp_path: Path) -> None:
    done = gguf(tmp_path, "--name", "x", "--type", "f16", "--quantize", "Q4_K_M", quantizer=False)
    assert done.returncode == 1
    assert "conversion: the image has no llama-quantize" in done.stderr
    assert list((tmp_path / "scratch").glob("*.gguf")) == []


def test_input_with_two_gguf_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "input" / name).touch()
    done = run(tmp_path, "to_safetensors.py", "--dtype", "bfloat16")
    assert "conversion: the input must have one file *.gguf, and has a.gguf, b.gguf" in done.stderr
