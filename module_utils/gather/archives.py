# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Images in archives, as `docker save` writes them: what a lock says of one, and its parts for a depot.

Old archives name layers LAYER/layer.tar, newer ones blobs/sha256/DIGEST; both have manifest.json. Nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.image_list import familiar
from ansible.module_utils.artifacts.manifest import path_problem
from ansible.module_utils.artifacts.sources import open_beneath

from . import oci

CHUNK = 1 << 20
LARGEST_DOCUMENT = 8 << 20
BLOB_PATH = re.compile(r"blobs/sha256/([0-9a-f]{64})")

Tick = Callable[[int], None]


def no_tick(_count: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Saved:
    """One image of an archive: the bytes of its configuration, and the names of its layers' members, lowest first."""

    config: bytes
    layers: tuple[str, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The configuration. Raises ValueError."""
        return dict(json.loads(self.config))

    @property
    def config_digest(self) -> str:
        """SHA-256 of the configuration, as sha256:…"""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"


class Archive:
    """An open archive."""

    def __init__(self, tar: tarfile.TarFile, where: str) -> None:
        self._tar, self._where = tar, where

    def image(self, ref: str) -> Saved:
        """Return the image of this name. Raises Refusal."""
        try:
            listed = json.loads(self._document("manifest.json"))
            known = {familiar(tag): item for item in listed for tag in item.get("RepoTags") or ()}
            item = known.get(familiar(ref))
            if item is None:
                held = ", ".join(sorted(known)) or "no name"
                raise Refusal(f"{self._where}: does not hold {ref}; it holds {held}")
            saved = Saved(self._document(item["Config"]), tuple(map(str, item["Layers"])))
            if len(saved.document["rootfs"]["diff_ids"]) != len(saved.layers):
                raise Refusal(f"{self._where}: {ref} names other layers in its configuration than in manifest.json")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refusal(f"{self._where}: is no archive of images as `docker save` writes them ({error})") from error
        return saved

    def layer(self, name: str) -> IO[bytes]:
        """Open a layer. Raises Refusal."""
        try:
            stream = self._tar.extractfile(name)
        except (KeyError, tarfile.TarError) as error:
            raise Refusal(f"{self._where}: {name} is missing; copy the archive again") from error
        if stream is None:
            raise Refusal(f"{self._where}: {name} is not a file")
        return stream

    def own(self, sha256: str) -> bytes | None:
        """Return a document that the archive has under its digest, such as the manifest of a registry."""
        try:
            data = self._document(f"blobs/sha256/{sha256}")
        except KeyError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def _document(self, name: str) -> bytes:
        stream = self._tar.extractfile(name)
        if stream is None:
            raise KeyError(f"{name} is not a file")
        data = stream.read(LARGEST_DOCUMENT + 1)
        if len(data) > LARGEST_DOCUMENT:
            raise ValueError(f"{name} is too large")
        return data


@contextmanager
def opened(folder: Path, name: str) -> Iterator[Archive]:
    """Open an archive below a folder, packed or not; links are refused. Raises Refusal, OSError."""
    where = _checked(folder, name)
    with open(open_beneath(folder, name), "rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:*") as tar:
                yield Archive(tar, where)
        except (tarfile.TarError, EOFError) as error:
            raise Refusal(f"{where}: cannot be read as a tar ({error}); copy it again") from error


def lock_archive(folder: Path, wish: Mapping[str, Any], tick: Tick = no_tick) -> dict[str, Any]:
    """Return the lock's row for an image of an archive; every byte was hashed.

    wish: {name, tag, archive}, and digest, config_digest, archive_sha256 where the inventory states them, which must
    be right. Raises Refusal, OSError.
    """
    name = str(wish["archive"])
    where = _checked(folder, name)
    sha256, size = _hash(folder, name, tick)
    _agree(where, "archive_sha256", wish.get("archive_sha256"), sha256)
    with opened(folder, name) as archive:
        saved = archive.image(f"{wish['name']}:{wish['tag']}")
        _agree(where, "config digest", wish.get("config_digest"), saved.config_digest)
        platform = oci.platform_of(saved.document)
        layers = [_layer(archive, member, platform, tick) for member in saved.layers]
        for layer, diff_id in zip(layers, saved.document["rootfs"]["diff_ids"]):
            if layer.media_type == oci.LAYER:
                _agree(where, "layer", diff_id, f"sha256:{layer.sha256}")
        config = oci.Blob("blobs", saved.config_digest[7:], len(saved.config), oci.CONFIG, platform)
        data, kind = _manifest(archive, wish, config, layers, where)
    manifest = oci.Blob("manifests", hashlib.sha256(data).hexdigest(), len(data), kind, platform)
    return {
        "name": wish["name"],
        "tag": str(wish["tag"]),
        "digest": f"sha256:{manifest.sha256}",
        "config_digest": saved.config_digest,
        "archive": name,
        "archive_sha256": sha256,
        "size": int(wish.get("size") or size),
        "platforms": [platform],
        "origin": name,
        "blobs": [blob.row() for blob in oci.ordered([manifest, config, *layers])],
    }


def parts_of(
    archive: Archive, row: Mapping[str, Any], wanted: set[str]
) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Yield (sha256, size, open) of the wanted parts of a locked image; whoever takes them proves them.

    Raises Refusal.
    """
    saved = archive.image(f"{row['name']}:{row['tag']}")
    blobs = {item["sha256"]: item for item in row["blobs"]}
    config_sha256 = saved.config_digest[7:]
    members: dict[str, Callable[[], IO[bytes]]] = {config_sha256: partial(io.BytesIO, saved.config)}
    for member, diff_id in zip(saved.layers, saved.document["rootfs"]["diff_ids"]):
        match = BLOB_PATH.fullmatch(member)
        sha256 = match.group(1) if match else str(diff_id).rpartition(":")[2]
        members[sha256] = partial(archive.layer, member)
    digest = row["digest"].rpartition(":")[2]
    own = archive.own(digest)
    if own is None and config_sha256 in blobs:
        listed = [_blob_of(blobs, saved, number) for number in range(len(saved.layers))]
        own = oci.manifest(_as_blob(blobs[config_sha256]), listed)
    members[digest] = partial(io.BytesIO, own or b"")
    for sha256 in sorted(wanted & members.keys() & blobs.keys()):
        yield sha256, blobs[sha256]["size"], members[sha256]


def _blob_of(blobs: Mapping[str, Mapping[str, Any]], saved: Saved, number: int) -> oci.Blob:
    member, diff_id = saved.layers[number], saved.document["rootfs"]["diff_ids"][number]
    match = BLOB_PATH.fullmatch(member)
    sha256 = match.group(1) if match else str(diff_id).rpartition(":")[2]
    if sha256 not in blobs:
        raise Refusal(f"the archive's layer {member} is not in the lock; the archive is another than when locking")
    return _as_blob(blobs[sha256])


def _as_blob(item: Mapping[str, Any]) -> oci.Blob:
    return oci.Blob(item["role"], item["sha256"], item["size"], item["media_type"], item["platform"])


def _layer(archive: Archive, member: str, platform: str, tick: Tick) -> oci.Blob:
    digest, size, head = hashlib.sha256(), 0, b""
    with archive.layer(member) as stream:
        while data := stream.read(CHUNK):
            head = head or data[:8]
            digest.update(data)
            size += len(data)
            tick(len(data))
    return oci.Blob("blobs", digest.hexdigest(), size, oci.layer_type(head), platform)


def _manifest(
    archive: Archive, wish: Mapping[str, Any], config: oci.Blob, layers: list[oci.Blob], where: str
) -> tuple[bytes, str]:
    """Return the image's manifest and its type: the registry's own where the archive has it, else one that is made."""
    stated = str(wish.get("digest") or "").rpartition(":")[2]
    made = oci.manifest(config, layers)
    if not stated or stated == hashlib.sha256(made).hexdigest():
        return made, oci.MANIFEST
    own = archive.own(stated)
    if own is None:
        raise Refusal(
            f"{where}: has no manifest sha256:{stated}, as a registry had it; take `digest` out of redoubt_images, and"
            " the lock gets the digest of the manifest that a depot serves for this archive"
        )
    document = json.loads(own)
    named = {row["digest"].rpartition(":")[2] for row in (document.get("config", {}), *document.get("layers", ()))}
    if named != {config.sha256, *(layer.sha256 for layer in layers)}:
        raise Refusal(f"{where}: the manifest sha256:{stated} names other parts than the archive has")
    return own, str(document.get("mediaType") or oci.MANIFEST)


def _checked(folder: Path, name: str) -> str:
    """Return the archive's place in words. Raises Refusal for a name that leads elsewhere."""
    wrong = path_problem(name)
    if wrong:
        raise Refusal(f"archive {name!r} {wrong}; use a file name below {folder}")
    return str(folder / name)


def _hash(folder: Path, name: str, tick: Tick) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(open_beneath(folder, name), "rb", buffering=0) as stream:
        while data := stream.read(CHUNK):
            digest.update(data)
            size += len(data)
            tick(len(data))
    return digest.hexdigest(), size


def _agree(where: str, what: str, stated: object, found: str) -> None:
    if stated and stated != found:
        raise Refusal(f"{where}: expected {what} {stated}, found {found}")
