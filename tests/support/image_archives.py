"""Small image archives as `docker save` writes them, good and bad ones, for the tests of the images role.

Run as a program it writes a set of them and their list into a folder:  python -m tests.support.image_archives FOLDER
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Built:
    """An archive and what a lock says of it."""

    path: Path
    config_digest: str
    sha256: str
    layer: bytes
    config: bytes

    def entry(self, name: str, tag: str = "1", **other: Any) -> dict[str, Any]:
        """Return the item of `images_list` for it; keyword arguments replace parts."""
        stated = {
            "key": name.rpartition("/")[2],
            "name": name,
            "tag": tag,
            "config_digest": self.config_digest,
            "archive": self.path.name,
            "archive_sha256": self.sha256,
            "size": self.path.stat().st_size,
        }
        return {**stated, **other}


def payload(size: int, seed: int) -> bytes:
    """Return bytes that do not compress and are the same each time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - test data


def build(path: Path, tags: Sequence[str] | None, content: bytes = b"hello\n", compress: bool = False) -> Built:
    """Write an archive with one image of one layer with one file."""
    layer = _tar({"content": content})
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": tags, "Layers": ["layer/layer.tar"]}]
    data = _tar({f"{digest}.json": config, "layer/layer.tar": layer, "manifest.json": json.dumps(manifest).encode()})
    if compress:
        data = gzip.compress(data, compresslevel=1, mtime=0)
    path.write_bytes(data)
    return Built(path, f"sha256:{digest}", hashlib.sha256(data).hexdigest(), layer, config)


def write_registry(folder: Path, built: Built, name: str) -> str:
    """Lay an image out as a folder that any web server serves as a registry; returns the manifest's digest."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": _descriptor(built.config, "application/vnd.docker.container.image.v1+json"),
            "layers": [_descriptor(built.layer, "application/vnd.docker.image.rootfs.diff.tar")],
        }
    ).encode()
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    for kind, data in (("manifests", manifest), ("blobs", built.config), ("blobs", built.layer)):
        path = folder / "v2" / name / kind / ("sha256:" + hashlib.sha256(data).hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return digest


def _descriptor(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(data), "digest": "sha256:" + hashlib.sha256(data).hexdigest()}


def _tar(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def main(folder: Path) -> None:
    """Write the archives that the scenario `images` uses."""
    folder.mkdir(parents=True, exist_ok=True)
    small = build(folder / "small.tar", ["redoubt.test/small:1"])
    large = build(folder / "large.tar", ["redoubt.test/large:1"], payload(48 << 20, 1))
    packed = build(folder / "packed.tar.gz", ["redoubt.test/packed:1"], payload(1 << 20, 2), compress=True)
    extra = build(folder / "extra.tar", ["redoubt.test/extra:1", "redoubt.test/small:1"], b"other\n")
    pulled = build(folder / "pulled.tar", None, b"pulled\n")
    cut = build(folder / "cut.tar", ["redoubt.test/cut:1"], payload(3 << 20, 3))
    cut.path.write_bytes(cut.path.read_bytes()[: 2 << 20])
    digest = write_registry(folder / "registry", pulled, "pulled")
    document = {
        "good": [small.entry("redoubt.test/small"), large.entry("redoubt.test/large")],
        "packed": packed.entry("redoubt.test/packed"),
        "extra": extra.entry("redoubt.test/extra"),
        "cut": cut.entry("redoubt.test/cut"),
        "pulled": {
            "key": "pulled",
            "name": "127.0.0.1:5000/pulled",
            "tag": "1",
            "digest": digest,
            "config_digest": pulled.config_digest,
        },
    }
    (folder / "list.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
