"""What the tests of conversions share: a store with an input, a job as the plan has it, and the stub docker."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.conversion.job import Job, parse_job
from ansible.module_utils.conversion.transaction import Place, convert
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network

from tests.support.weight_trees import model, write_tree

STUB = Path(__file__).parent / "stubs" / "stub_job_docker.py"
DIGEST = f"sha256:{'a' * 64}"


def safetensors(value: int = 0) -> bytes:
    """Return a file with one tensor."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes([value] * 4)


INPUT = {"model.safetensors": safetensors(1), "config.json": b'{"model_type": "tiny"}'}
RESULT = {"model.safetensors": safetensors(2), "config.json": b'{"quantization_config": {"quant_method": "stub"}}'}


class Site:
    """A host's store with the model `tiny`, and what the stub docker does."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.store = Store(root / "models", root / "weights")
        write_tree(root / "source/tiny", INPUT)
        sources = make_sources([f"file://{root}/source"], "weights_source", Network())
        present(self.store, parse_models([model(INPUT)]), sources, Settings())
        self.place = Place(
            store=self.store,
            state=root / "state",
            logs=root / "logs",
            progress=root / "progress.json",
            images_file=root / "images.json",
            reserve_bytes=0,
            timeout=60,
            user=(65534, 65534),
            pause=0.0,
        )
        self.state_file = root / "docker.json"
        self.behave()
        (root / "bin").mkdir()
        (root / "bin/docker").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STUB} "$@"\n')
        (root / "bin/docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{root}/bin:/usr/bin:/bin")
        monkeypatch.setenv("STUB_DOCKER", str(self.state_file))

    @property
    def input(self) -> Path:
        """Return the published input."""
        return Path(self.store.models, "tiny/aaaaaaaaaaaa")

    def behave(self, files: dict[str, bytes] | None = None, **job: Any) -> None:
        """Say what the next job writes and how it ends."""
        written = {path: data.hex() for path, data in (RESULT if files is None else files).items()}
        document = {"id": DIGEST, "containers": {}, "calls": [], "job": {"files": written, **job}}
        self.state_file.write_text(json.dumps(document))

    def docker(self) -> dict[str, Any]:
        """Return what the stub docker knows."""
        document: dict[str, Any] = json.loads(self.state_file.read_text())
        return document

    def ran(self) -> int:
        """Return how many jobs were started."""
        return sum(" up " in call for call in self.docker()["calls"])

    def raw(self, **fields: Any) -> dict[str, Any]:
        """Return the plan's entry of a job."""
        return {
            "name": "tiny-fp8",
            "kind": "fp8",
            "container": "redoubt-convert-tiny-fp8",
            "image": {"key": "stub", "name": "example/stub", "tag": "1", "config_digest": DIGEST, "archive": "a.tar"},
            "inputs": [model(INPUT)],
            "programs": ["common.py"],
            "entrypoint": ["python3"],
            "command": ["/programs/common.py", "--scheme", "FP8_DYNAMIC"],
            "environment": {"HOME": "/scratch"},
            "gives": "quantized",
            "needed_bytes": 1000,
            "license": "apache-2.0",
        } | fields

    def job(self, program: str = "print()\n", **fields: Any) -> Job:
        """Return a job."""
        folder = self.store.models / ".converting/tiny-fp8"
        binds = "".join(
            f'      - {{type: bind, source: "{folder}/{name}", target: /{name}}}\n'
            for name in ("programs", "output", "scratch")
        )
        compose = (
            'services:\n  job:\n    container_name: "redoubt-convert-tiny-fp8"\n    image: "@image@"\n'
            f"    volumes:\n{binds}"
        )
        job: Job = parse_job(self.raw(**fields), {"common.py": program}, compose)
        return job

    def convert(self, job: Job | None = None, **how: Any) -> dict[str, Any]:
        """Run the module's work."""
        result: dict[str, Any] = convert(self.place, job or self.job(), how.get("check", False))
        return result

    def visible(self) -> list[str]:
        """Return what engines can see, and what was left of the work."""
        folders = [self.store.models / ".converting/tiny-fp8", self.store.models / "tiny-fp8"]
        left = [path for folder in folders if folder.exists() for path in folder.rglob("*")]
        left += list((self.store.models / ".incoming").rglob("*"))
        return sorted(str(path.relative_to(self.store.models)) for path in left)
