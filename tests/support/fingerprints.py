"""Fingerprints of made-up hosts, for the tests of comparing them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.fingerprint.document import Gathered

CURL = {"version": "8.14.1-2", "architecture": "amd64"}
NGINX_CONF = "/etc/nginx/nginx.conf"
WEIGHT = "tiny/aaaaaaaaaaaa/model.safetensors"
IMAGE = "redoubt.test/engine:1"
PLATFORM = "debian-13-amd64"


def gathered() -> Gathered:
    """What a host with one thing of every kind has, all as recorded."""
    made = Gathered()
    made.sections["packages"] = {"curl": dict(CURL)}
    rows = {
        "files": {NGINX_CONF: {"kind": "file", "mode": "0644", "owner": "root", "content": f"sha256:{'a' * 64}"}},
        "images": {IMAGE: {"digest": f"sha256:{'c' * 64}"}},
        "weights": {WEIGHT: {"sha256": "e" * 64}},
        "units": {"nginx.service": {"load": "loaded", "boot": "enabled", "runs": "active"}},
        "kernel": {"net.core.somaxconn": {"value": "4096", "at_boot": "4096"}},
        "users": {"redoubt": {"home": "/var/lib/redoubt", "shell": "none"}},
    }
    for section, found in rows.items():
        made.sections[section] = found
        made.recorded[section] = {name: dict(row) for name, row in found.items()}
    made.local["files"] = {NGINX_CONF: {"bytes": f"sha256:{'b' * 64}"}}
    made.recorded_local["files"] = {NGINX_CONF: {"bytes": f"sha256:{'b' * 64}"}}
    made.local["system"] = {"addresses": {"value": "10.0.0.5"}, "platform": {"value": PLATFORM}}
    return made


def fingerprint(host: str = "h1", made: Gathered | None = None, taken: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    """The document of a host."""
    document: dict[str, Any] = (made or gathered()).document(host, taken)
    return document


def lock() -> dict[str, Any]:
    """A lock that allows what `gathered` has."""
    image = {"name": "redoubt.test/engine", "tag": "1", "digest": f"sha256:{'d' * 64}"}
    files = [{"path": "model.safetensors", "size": 9, "sha256": "e" * 64}]
    return {
        "schema": 1,
        "platforms": {PLATFORM: {"packages": [{"name": "curl", **CURL, "sha256": "f" * 64}]}},
        "images": {"engine": {**image, "config_digest": f"sha256:{'c' * 64}"}},
        "models": {"tiny": {"revision": "a" * 40, "files": files}},
    }
