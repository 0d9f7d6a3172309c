"""What a job wrote: judged as a model, with a manifest beside it, and put into the store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.inspection import inspect
from ansible.module_utils.artifacts.locking import Choice, lock_entry, lock_folder
from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store

from .job import MANIFEST, Job

RANK = re.compile(r"rank(\d+)\.engine")
MOST_TOOLS = 65536
# Nothing of another revision is removed for a new one: what is served is not known here.
ALL = 1_000_000


@dataclass(frozen=True)
class Made:
    """A result: the model with every file, its lock entry, and the text of its manifest."""

    model: Model
    entry: dict[str, Any]
    manifest: str


def take(job: Job, output: Path, tools_file: Path, allow_pickle: Sequence[str], allow_code: Sequence[str]) -> Made:
    """Hash and judge what a job wrote, and put the manifest beside it. Raises Refusal, OSError."""
    if not any(path.is_file() for path in output.rglob("*")):
        raise Refusal("the job ended well, but it wrote nothing")
    if os.path.lexists(output / MANIFEST):
        raise Refusal(f"the job wrote a {MANIFEST} of its own")
    files = lock_folder(output, "", Choice((), ()), os.cpu_count() or 1)["files"]
    text = job.manifest(files, read_tools(tools_file))
    revision = hashlib.sha256(text.encode()).hexdigest()[:40]
    whole = [
        *files,
        {"path": MANIFEST, "size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()},
    ]
    entry = {"license": job.licence, **lock_entry(revision, whole)}
    entry = {"revision": entry.pop("revision"), **entry}
    (model,) = parse_models([{**entry, "name": job.name}], allow_pickle, allow_code)
    (output / MANIFEST).write_text(text, encoding="utf-8")
    facts, problems = inspect(model, lambda one: output / one.path)
    problems += lacks(job.gives, model, facts, output)
    if problems:
        raise Refusal([f"what the job wrote cannot be loaded: {problem}" for problem in problems])
    return Made(model, entry, text)


def lacks(gives: str, model: Model, facts: Mapping[str, Any], output: Path) -> list[str]:
    """Say what a result of this sort must have and has not."""
    paths = {entry.path: entry.size for entry in model.files}
    if gives == "trtllm":
        return _engines(paths, output)
    ending = {"gguf": ".gguf", "onnx": ".onnx"}.get(gives, ".safetensors")
    if not any(path.endswith(ending) for path in paths):
        return [f"there is no {ending} file"]
    if not facts["tensors"]:
        return ["its files hold no tensor"]
    if gives in ("safetensors", "quantized") and "config.json" not in paths:
        return ["there is no config.json"]
    if gives == "quantized" and "quantization_config" not in facts["config"]:
        return ["config.json has no quantization_config, so the weights are as they were"]
    return []


def _engines(paths: Mapping[str, int], output: Path) -> list[str]:
    try:
        config = json.loads((output / "config.json").read_bytes())
        mapping = config["pretrained_config"]["mapping"]
        count = int(mapping.get("world_size") or int(mapping.get("tp_size", 1)) * int(mapping.get("pp_size", 1)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"config.json does not say how many engines belong together ({type(error).__name__})"]
    ranks = {int(match[1]) for path, size in paths.items() if size and (match := RANK.fullmatch(path))}
    return [f"rank{rank}.engine is not there, or empty" for rank in range(count) if rank not in ranks]


def read_tools(path: Path) -> dict[str, str]:
    """Return what the job noted of its tools' versions; nothing where it noted none."""
    try:
        if path.is_symlink() or path.stat().st_size > MOST_TOOLS:
            return {}
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {str(name)[:100]: str(version)[:100] for name, version in document.items()}


def publish(store: Store, made: Made, output: Path, threads: int = 0) -> str:
    """Make the result a proved revision of the store, by one rename; return its folder. Raises Refusal, OSError."""
    staged = store.staged(made.model)
    if os.geteuid() == 0:
        for folder, _, names in os.walk(output):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, 0, 0, follow_symlinks=False)

    def arrive() -> None:
        shutil.rmtree(staged.parent, ignore_errors=True)  # of a run that was killed
        staged.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.rename(output, staged)

    try:
        present(store, [made.model], None, Settings(workers=threads, keep_revisions=ALL), arrive)
    finally:
        # The same bytes were published before, or it was refused.
        shutil.rmtree(staged.parent, ignore_errors=True)
        with contextlib.suppress(OSError):
            staged.parent.parent.rmdir()
    return str(store.published(made.model))
