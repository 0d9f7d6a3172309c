"""Small trees of model files and their manifests, for the tests of the weights module and role.

Run as a program it writes two revisions of a model and their list:  python -m tests.support.weight_trees FOLDER
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.image_archives import payload

REVISIONS = ("a" * 40, "b" * 40)


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def manifest(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return the manifest of files given as path: content."""
    return [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in sorted(files.items())
    ]


def model(files: Mapping[str, bytes], name: str = "tiny", revision: str = REVISIONS[0]) -> dict[str, Any]:
    """Return an item of `weights_models`."""
    return {"name": name, "revision": revision, "files": manifest(files)}


def tensor_file(size: int, seed: int) -> bytes:
    """Return a safetensors file with one tensor of so many bytes."""
    header = json.dumps({f"layer.{seed}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + payload(size, seed)


def write_tree(root: Path, files: Mapping[str, bytes]) -> None:
    """Write the files below a folder."""
    for path, data in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def main(folder: Path) -> None:
    """Write first/tiny and second/tiny, two revisions that share one file, and list.json."""
    shared = {"config.json": b'{"model_type": "tiny"}\n', "shards/1.dat": payload(40 << 20, 1)}
    documents = []
    for name, revision, seed in (("first", REVISIONS[0], 2), ("second", REVISIONS[1], 3)):
        files = {**shared, "shards/2.dat": payload(24 << 20, seed)}
        write_tree(folder / name / "tiny", files)
        documents.append(model(files, revision=revision))
    (folder / "list.json").write_text(json.dumps(documents, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
