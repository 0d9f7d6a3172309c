"""Small locks with their bytes, for tests of what a depot does with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLATFORM = "debian-13-amd64"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class LockMaker:
    """Collects parts of a lock and their bytes; `lock()` is the document, `contents` is {sha256: bytes}."""

    site: str = "bank-north"
    serial: int = 1
    contents: dict[str, bytes] = field(default_factory=dict)
    packages: list[dict[str, Any]] = field(default_factory=list)
    stanzas: list[str] = field(default_factory=list)
    images: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    wheels: list[dict[str, Any]] = field(default_factory=list)
    project: dict[str, Any] = field(default_factory=dict)
    platform: str = PLATFORM
    rpm_platforms: dict[str, Any] = field(default_factory=dict)

    def keep(self, data: bytes) -> dict[str, Any]:
        """Remember bytes; return their figures."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.contents[sha256] = data
        return {"sha256": sha256, "size": len(data)}

    def package(self, name: str, version: str, data: bytes, control: str = "", architecture: str = "amd64") -> None:
        """Add a package; `control` is its control file's text, made up when empty."""
        figures, path = self.keep(data), f"pool/{name[0]}/{name}_{version}_{architecture}.deb"
        row = {"name": name, "version": version, "architecture": architecture, "path": path, "origin": "test"}
        self.packages.append({**row, **figures, "base": False, "bootstrap": False})
        text = control or f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nDescription: {name}"
        figures_text = f"Filename: {path}\nSize: {figures['size']}\nSHA256: {figures['sha256']}"
        self.stanzas.append(f"{text.strip()}\n{figures_text}\n")

    def rpm_repository(self, platform: str, files: Mapping[str, bytes]) -> None:
        """Add a platform with a DNF repository, as createrepo_c leaves it: {path: bytes}."""
        rows: dict[str, list[dict[str, Any]]] = {"packages": [], "indexes": []}
        for path, data in sorted(files.items()):
            if path.endswith(".rpm"):
                about = {"name": path.rpartition("/")[2], "version": "1", "architecture": "noarch", "origin": "test"}
                rows["packages"].append({**about, "path": path, **self.keep(data)})
            else:
                rows["indexes"].append({"path": path, **self.keep(data)})
        self.rpm_platforms[platform] = rows

    def locked_platform(self, platform: str, row: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Add a platform as package_closure answers, with its files and lists."""
        self.rpm_platforms[platform] = dict(row)
        for data in files.values():
            self.keep(data)

    def image(self, key: str, name: str, layers: list[bytes], config: Mapping[str, Any] | None = None) -> str:
        """Add an image of one platform; return its manifest's digest."""
        tars = [{"mediaType": OCI_LAYER, **self._descriptor(layer)} for layer in layers]
        said = config or {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in tars]},
        }
        about = {"mediaType": OCI_CONFIG, **self._descriptor(json.dumps(said).encode())}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": about, "layers": tars}
        manifest = self._descriptor(json.dumps(document).encode())
        rows = [("manifests", OCI_MANIFEST, manifest), ("blobs", OCI_CONFIG, about)]
        rows += [("blobs", OCI_LAYER, layer) for layer in tars]
        self.images[key] = {
            "name": name,
            "tag": "1.0",
            "digest": manifest["digest"],
            "config_digest": about["digest"],
            "origin": "test",
            "platforms": ["linux/amd64"],
            "blobs": [
                {
                    "role": role,
                    "sha256": row["digest"].partition(":")[2],
                    "size": row["size"],
                    "media_type": kind,
                    "platform": "linux/amd64",
                }
                for role, kind, row in rows
            ],
        }
        return str(manifest["digest"])

    def _descriptor(self, data: bytes) -> dict[str, Any]:
        figures = self.keep(data)
        return {"digest": f"sha256:{figures['sha256']}", "size": figures["size"]}

    def model(self, name: str, revision: str, files: Mapping[str, bytes]) -> None:
        """Add a model's revision (40 hex digits)."""
        rows = [{"path": path, **self.keep(data)} for path, data in sorted(files.items())]
        self.models[name] = {"revision": revision, "license": "Apache-2.0", "origin": "test", "files": rows}

    def wheel(self, name: str, version: str, file: str, data: bytes) -> None:
        """Add a wheel."""
        self.wheels.append({"name": name, "version": version, "file": file, "origin": "test", **self.keep(data)})

    def tree(self, file: str, data: bytes) -> None:
        """Add the project's own tree."""
        self.project = {"version": "0.1.0", "file": file, **self.keep(data)}

    def lock(self) -> dict[str, Any]:
        """Return the document, with its digest."""
        platforms: dict[str, Any] = dict(self.rpm_platforms)
        if self.packages:
            index = self.keep("\n".join(self.stanzas).encode())
            platforms[self.platform] = {
                "packages": self.packages,
                "indexes": [{"path": "Packages", **index}],
            }
        body = {
            "site": self.site,
            "platforms": platforms,
            "images": self.images,
            "models": self.models,
            "python": {"requirements": "", "targets": [], "files": self.wheels},
            "project": self.project,
            "keys": [],
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return {
            "schema": 1,
            "serial": self.serial,
            "digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
            **json.loads(text),
        }


def small(site: str = "bank-north", serial: int = 1) -> LockMaker:
    """Return a lock with one part of every kind."""
    made = LockMaker(site, serial)
    made.package("curl", "8.14.1-2", b"curl" * 1000)
    made.package("nginx", "1.26.3-3", b"nginx" * 3000)
    made.image("tiny", "redoubt/tiny", [b"layer one" * 500, b"layer two" * 500])
    made.model("smol", "a" * 40, {"config.json": b"{}", "deep/model.safetensors": bytes(range(256)) * 400})
    made.wheel("Rich_Text", "13.0", "rich_text-13.0-py3-none-any.whl", b"wheel" * 100)
    made.tree("redoubt-0123456789ab.tar", b"tar" * 700)
    return made
