"""The entries of a plan that are only written down, without a decision."""

from __future__ import annotations

from typing import Any

from planner.document import Image, Lock, Model
from planner.engines import Rendered


def image_entry(image: Image) -> dict[str, Any]:
    """Return an image that the host needs."""
    return {
        "key": image.key,
        "name": image.name,
        "tag": image.tag,
        "ref": image.ref,
        "digest": image.digest,
        "config_digest": image.config_digest,
        "archive": image.archive,
        "archive_sha256": image.archive_sha256,
        "size": image.size,
    }


def weights_entry(lock: Lock) -> dict[str, Any]:
    """Return a model's files that the host needs."""
    return {
        "name": lock.name,
        "revision": lock.revision,
        "repo": lock.repo or "",
        "license": lock.license,
        "total_size": lock.total_size,
        "files": [dict(file) for file in lock.files],
    }


def endpoint(address: str, port: int) -> str:
    """Return ADDRESS:PORT, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def resources(model: Model, rendered: Rendered) -> dict[str, Any]:
    """Return the limits of an engine's container; null = none."""
    return {
        "cpus": model.resources.cpus,
        "memory": model.resources.memory,
        "shm_size": model.resources.shm_size or rendered.shm_size,
    }
