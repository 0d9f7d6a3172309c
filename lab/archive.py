"""A small, deterministic writer of docker-archive files: what `docker load` reads, made without an engine.

The same inputs give the same bytes: entries are sorted, times are fixed, and nothing of this machine's users gets in.
Each layer is written once, straight into the archive; its header is filled in afterwards, when its digest is known.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

#: The time stamped on everything: 2026-01-01T00:00:00Z.
EPOCH = 1767225600
CREATED = "2026-01-01T00:00:00Z"
BLOCK = 512
CHUNK = 4 << 20
#: Raise this when a change here must make all images anew.
FORMAT = 1


class Sink(Protocol):
    """Where a layer writes its tar."""

    def write(self, data: bytes, /) -> int:
        """Take the bytes."""


class Layer(Protocol):
    """Something that writes itself as one uncompressed tar."""

    def write(self, sink: Sink) -> None:
        """Write the whole tar, with its end marker."""


@dataclass(frozen=True)
class TarLayer:
    """A tar file that exists already, taken as it is."""

    path: Path

    def write(self, sink: Sink) -> None:
        """Copy the file."""
        with self.path.open("rb") as source:
            while chunk := source.read(CHUNK):
                sink.write(chunk)


@dataclass(frozen=True)
class TreeLayer:
    """A folder, placed at ``prefix`` inside the image and owned by root there.

    ``keep`` is asked about each path relative to the folder; a folder that is not kept takes its content with it.
    ``owners`` gives some paths, relative to the folder, to other users, by number.
    """

    root: Path
    prefix: str = ""
    keep: Callable[[str], bool] = field(default=lambda _path: True)
    owners: Mapping[str, int] = field(default_factory=dict)

    def write(self, sink: Sink) -> None:
        """Write the folder's entries, sorted by name."""
        with tarfile.TarFile(fileobj=_Stream(sink), mode="w", format=tarfile.PAX_FORMAT) as tar:
            parts = [part for part in self.prefix.split("/") if part]
            for depth in range(1, len(parts) + 1):
                tar.addfile(_folder("/".join(parts[:depth])))
            self._add(tar, self.root, "", "/".join(parts))

    def _add(self, tar: tarfile.TarFile, folder: Path, inside: str, prefix: str) -> None:
        for entry in sorted(os.scandir(folder), key=lambda item: item.name):
            relative = f"{inside}/{entry.name}" if inside else entry.name
            if not self.keep(relative):
                continue
            name = f"{prefix}/{relative}" if prefix else relative
            if entry.is_symlink():
                link = _entry(name, 0o777, tarfile.SYMTYPE)
                link.linkname = os.readlink(entry.path)
                tar.addfile(link)
            elif entry.is_dir():
                directory = _folder(name, stat.S_IMODE(entry.stat().st_mode))
                directory.uid = directory.gid = self.owners.get(relative, 0)
                tar.addfile(directory)
                self._add(tar, Path(entry.path), relative, prefix)
            else:
                info = entry.stat()
                regular = _entry(name, stat.S_IMODE(info.st_mode), tarfile.REGTYPE)
                regular.size = info.st_size
                with Path(entry.path).open("rb") as source:
                    tar.addfile(regular, source)


@dataclass(frozen=True)
class Image:
    """What `docker load` made of an archive will be called, and where the archive is."""

    name: str
    tag: str
    config_digest: str
    archive: str
    archive_sha256: str
    size: int

    def as_dict(self) -> dict[str, Any]:
        """The record as it stands in the lock file."""
        return dict(vars(self))


def write_image(
    path: Path,
    *,
    name: str,
    tag: str,
    layers: Sequence[Layer],
    config: Mapping[str, Any],
    progress: Callable[[int], None] = lambda _done: None,
) -> Image:
    """Write an image with these layers (lowest first) to ``path``, whole or not at all.

    ``config`` is the image's runtime configuration (Env, Entrypoint, User, Labels, ...). ``progress`` is told the bytes
    written so far. Raises OSError where the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w+b") as out:
            diff_ids = [_write_layer(out, layer, progress) for layer in layers]
            document = {
                "architecture": "amd64",
                "config": dict(config),
                "created": CREATED,
                "history": [{"created": CREATED, "created_by": "redoubt lab"} for _ in diff_ids],
                "os": "linux",
                "rootfs": {"diff_ids": [f"sha256:{digest}" for digest in diff_ids], "type": "layers"},
            }
            raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
            digest = hashlib.sha256(raw).hexdigest()
            files = [f"{layer}/layer.tar" for layer in diff_ids]
            manifest = [{"Config": f"{digest}.json", "Layers": files, "RepoTags": [f"{name}:{tag}"]}]
            _write_file(out, f"{digest}.json", raw)
            _write_file(out, "manifest.json", json.dumps(manifest, sort_keys=True).encode())
            out.write(bytes(2 * BLOCK))
        sha256 = file_sha256(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return Image(name, tag, f"sha256:{digest}", path.name, sha256, path.stat().st_size)


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """The digest and the content of the configuration of the (single) image in an archive.

    Raises ValueError where the file is no such archive.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            manifest = json.loads(_content(tar, "manifest.json"))
            raw = _content(tar, manifest[0]["Config"])
    except (tarfile.TarError, KeyError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no docker-archive of one image: {error}") from error
    return f"sha256:{hashlib.sha256(raw).hexdigest()}", json.loads(raw)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class _Stream(io.RawIOBase):
    """A sink, as a file that tarfile can write to."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        self._position += len(data)
        return self._sink.write(data)


class _HashingSink:
    """Writes through to the archive, counting and hashing."""

    def __init__(self, out: IO[bytes], start: int, progress: Callable[[int], None]) -> None:
        self._out = out
        self._start = start
        self._progress = progress
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self._progress(self._start + self.size)
        return self._out.write(data)


def _write_layer(out: IO[bytes], layer: Layer, progress: Callable[[int], None]) -> str:
    header_at = out.tell()
    out.write(bytes(BLOCK))
    sink = _HashingSink(out, out.tell(), progress)
    layer.write(sink)
    out.write(bytes(-sink.size % BLOCK))
    end = out.tell()
    digest = sink.sha256.hexdigest()
    out.seek(header_at)
    out.write(_header(f"{digest}/layer.tar", sink.size))
    out.seek(end)
    return digest


def _write_file(out: IO[bytes], name: str, content: bytes) -> None:
    out.write(_header(name, len(content)) + content + bytes(-len(content) % BLOCK))


def _header(name: str, size: int) -> bytes:
    info = _entry(name, 0o644, tarfile.REGTYPE)
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    if len(header) != BLOCK:
        raise ValueError(f"{name!r} is too long for one header")
    return header


def _folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    return _entry(name, mode, tarfile.DIRTYPE)


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    info.type = kind
    info.mtime = EPOCH
    return info


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    handle = tar.extractfile(name)
    if handle is None:
        raise KeyError(name)
    return handle.read()
