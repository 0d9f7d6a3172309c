# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Words of the OCI image format, and the manifest that an archive's image gets: always the same. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
CONFIG = f"{OCI}.config.v1+json"
LAYER = f"{OCI}.layer.v1.tar"
DOCKER_MANIFEST = f"{DOCKER}.distribution.manifest.v2+json"
DOCKER_LIST = f"{DOCKER}.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_LIST)
# How a packed layer begins, and what its media type ends in.
PACKED = ((b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd"))


@dataclass(frozen=True)
class Blob:
    """Some bytes of an image: where a registry has them (manifests or blobs), what they are, for which platform."""

    role: str
    sha256: str
    size: int
    media_type: str
    platform: str

    def row(self) -> dict[str, Any]:
        """The blob as it stands in a lock."""
        return dict(vars(self))


def layer_type(head: bytes) -> str:
    """Return the media type of a layer from its first bytes."""
    return LAYER + next((ending for magic, ending in PACKED if head.startswith(magic)), "")


def manifest(config: Blob, layers: Sequence[Blob]) -> bytes:
    """Return the manifest of an image, in canonical JSON: the same image gives the same bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(layer) for layer in layers],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def descriptor(blob: Blob) -> dict[str, Any]:
    """Return how a manifest speaks of a blob."""
    return {"mediaType": blob.media_type, "digest": f"sha256:{blob.sha256}", "size": blob.size}


def platform_of(config: Mapping[str, Any]) -> str:
    """Return 'linux/amd64' or 'linux/arm64/v8' from a configuration or a descriptor's platform."""
    words = [str(config.get(key) or "") for key in ("os", "architecture", "variant")]
    return "/".join(word for word in words if word)


def ordered(blobs: Sequence[Blob]) -> list[Blob]:
    """Return each blob once: manifests first, then by platform and digest."""
    known = {(blob.role, blob.sha256): blob for blob in reversed(blobs)}
    return sorted(known.values(), key=lambda blob: (blob.role != "manifests", blob.platform, blob.sha256))
