"""Documents for the planner: a small valid site, from which tests take away or spoil one thing."""

from __future__ import annotations

import hashlib
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


def digest(text: str) -> str:
    """Return a SHA-256 that looks like a real one."""
    return hashlib.sha256(text.encode()).hexdigest()


def image(key: str, size: int = 1000) -> dict[str, Any]:
    """Return an entry of redoubt_images."""
    return {
        "name": f"example/{key}",
        "tag": "0.32.0-ab12cd34" if key == "vllm" else "1.0.0",
        "config_digest": f"sha256:{digest(key)}",
        "archive": f"{key}.tar",
        "archive_sha256": digest(f"{key}.tar"),
        "size": size,
    }


def images(*more: str) -> dict[str, Any]:
    """Return redoubt_images with all that a site needs."""
    keys = ("vllm", "prometheus", "alertmanager", "node_exporter", "blackbox_exporter", *more)
    return {key: image(key) for key in keys}


def lock(name: str, size: int = 500) -> dict[str, Any]:
    """Return an entry of redoubt_model_locks."""
    return {
        "revision": REVISION,
        "license": "apache-2.0",
        "total_size": size,
        "files": [{"path": "model.safetensors", "size": size, "sha256": digest(name)}],
    }


def model(name: str = "small", **fields: Any) -> dict[str, Any]:
    """Return an entry of redoubt_models, on the CPU unless told otherwise."""
    return {"name": name, "engine": "vllm", "gpus": 0, "context": 2048, "concurrency": 4} | fields


def host(*models: dict[str, Any], kinds: tuple[str, ...] = ("inference",), **fields: Any) -> dict[str, Any]:
    """Return the description of a host."""
    return {"kinds": list(kinds), "address": "127.0.0.1", "models": list(models)} | fields


def document(hosts: dict[str, Any] | None = None, name: str = "h1", **fields: Any) -> dict[str, Any]:
    """Return a document for `name`; without hosts one machine that does everything."""
    everything = host(
        model(),
        kinds=("gateway", "inference", "monitoring"),
        gateway={"server_name": "llm.example.org", "https_port": 443},
    )
    chosen = hosts or {name: everything}
    listed = [entry.get("name") for described in chosen.values() for entry in described["models"]]
    names = {name for name in listed if isinstance(name, str)}
    return {
        "host": name,
        "hosts": chosen,
        "images": images(),
        "locks": {known: lock(known) for known in sorted(names)},
        "sources": {"images": "file:///media/redoubt/images", "models": "file:///media/redoubt/models"},
    } | fields
