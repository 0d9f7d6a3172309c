"""A realistic lock for tests: two platforms, two images, a model, wheels, the project; and the bytes of each part."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from ansible.module_utils.lock.document import canonical, sealed

SITE = "bank-north"
AMD64, ARM64 = "debian-13-amd64", "debian-13-arm64"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
UPSTREAM = "https://packages.example/debian"
FINGERPRINT = "4CB50190207B4758A3F73A796ED0E7B82643E131"


class Contents(dict[str, bytes]):
    """The bytes of a lock's parts, by SHA-256."""

    def keep(self, data: bytes) -> dict[str, Any]:
        """Remember bytes; return {sha256, size}."""
        sha256 = hashlib.sha256(data).hexdigest()
        self[sha256] = data
        return {"sha256": sha256, "size": len(data)}


def package(contents: Contents, name: str, version: str, architecture: str = "amd64", **flags: bool) -> dict[str, Any]:
    """A row of a platform's packages; its file is text that no dpkg reads."""
    path = f"pool/{name[0]}/{name}_{version.rpartition(':')[2]}_{architecture}.deb"
    row = {"name": name, "version": version, "architecture": architecture, "path": path}
    origin = f"{UPSTREAM}/{path}"
    return {**row, **contents.keep(f"{name} {version} {architecture}\n".encode() * 99), "origin": origin, **flags}


def platform(contents: Contents, architecture: str = "amd64") -> dict[str, Any]:
    """A platform's part of a lock."""
    no, yes = {"base": False, "bootstrap": False}, {"base": False, "bootstrap": True}
    rows = [
        package(contents, "libc6", "2.41-12", architecture, base=True, bootstrap=True),
        package(contents, "curl", "8.14.1-2", architecture, **no),
        package(contents, "docker.io", "26.1.5+dfsg1-9+b9", architecture, **no),
        package(contents, "nginx", "1.26.3-3+deb13u1", architecture, **yes),
    ]
    rows.sort(key=lambda row: row["name"])
    text = "\n".join(f"Package: {row['name']}\nVersion: {row['version']}\nFilename: {row['path']}\n" for row in rows)
    base = [{key: row[key] for key in ("name", "version", "architecture")} for row in rows if row["base"]]
    return {
        "base": {"name": "minimal", "packages": base, "digest": _digest(base)},
        "repositories": [
            {
                "name": "debian-trixie",
                "uri": UPSTREAM,
                "suite": "trixie",
                "components": ["main"],
                "fingerprints": [FINGERPRINT],
            }
        ],
        "wishes": {"common": ["curl"], "docker": ["docker.io"], "gateway": ["nginx"]},
        "bootstrap": ["nginx"],
        "packages": rows,
        "indexes": [{"path": "Packages", **contents.keep(text.encode())}],
    }


def image(contents: Contents, name: str, tag: str) -> dict[str, Any]:
    """An image of one platform and two layers."""
    layers = [contents.keep(f"layer {number} of {name}".encode() * 500) for number in (1, 2)]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{row['sha256']}" for row in layers]}
    config = contents.keep(canonical({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}))
    described = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _described(OCI_CONFIG, config)}
    manifest = contents.keep(canonical({**described, "layers": [_described(OCI_LAYER, row) for row in layers]}))
    blobs = [("manifests", OCI_MANIFEST, manifest), ("blobs", OCI_CONFIG, config)]
    blobs += [("blobs", OCI_LAYER, row) for row in layers]
    return {
        "name": name,
        "tag": tag,
        "digest": f"sha256:{manifest['sha256']}",
        "config_digest": f"sha256:{config['sha256']}",
        "size": sum(row["size"] for row in layers),
        "platforms": ["linux/amd64"],
        "origin": f"{name}:{tag}",
        "blobs": [{"role": role, **row, "media_type": kind, "platform": "linux/amd64"} for role, kind, row in blobs],
    }


def make(site: str = SITE) -> tuple[dict[str, Any], Contents]:
    """Return a lock with parts of every kind, and the bytes of each."""
    contents = Contents()
    files = {"config.json": b"{}", "model-00001-of-00001.safetensors": bytes(range(256)) * 400}
    wheels = {"pip-25.3-py3-none-any.whl": b"pip" * 100, "rich-14.2.0-py3-none-any.whl": b"rich" * 100}
    body: dict[str, Any] = {
        "platforms": {AMD64: platform(contents), ARM64: platform(contents, "arm64")},
        "images": {
            "vllm": image(contents, "vllm/vllm-openai", "v0.33.0"),
            "prometheus": image(contents, "prom/prometheus", "v3.14.0"),
        },
        "models": {
            "smollm2-135m-instruct": {
                "revision": "02d466f60c3f547d741a6bcbce1976cd5c74d7ad",
                "license": "apache-2.0",
                "source": "huggingface",
                "origin": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "total_size": sum(map(len, files.values())),
                "files": [{"path": path, **contents.keep(data)} for path, data in sorted(files.items())],
            }
        },
        "python": {
            "requirements": hashlib.sha256(b"requirements").hexdigest(),
            "targets": [{"python": "3.13", "platform": "manylinux_2_28_x86_64"}],
            "files": [
                {
                    "name": name.split("-")[0],
                    "version": name.split("-")[1],
                    "file": name,
                    **contents.keep(data),
                    "origin": "pip",
                }
                for name, data in sorted(wheels.items())
            ],
        },
        "project": {
            "version": "0.5.0-3-g0123456",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "file": "redoubt-0123456789ab.tar",
            **contents.keep(b"the project's files" * 50),
        },
        "keys": [{"name": "debian-trixie", "fingerprint": FINGERPRINT}],
    }
    return sealed(body, site), contents


def changed(lock: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the next lock after a change of a copy, with serial and digest as they must be."""
    body = copy.deepcopy({key: value for key, value in lock.items() if key not in ("schema", "serial", "digest")})
    change(body)
    made: dict[str, Any] = sealed(body, lock["site"], lock)
    return made


def _described(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{row['sha256']}", "size": row["size"]}


def _digest(rows: list[dict[str, Any]]) -> str:
    return f"sha256:{hashlib.sha256(canonical(rows)).hexdigest()}"
