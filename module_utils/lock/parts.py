# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a lock lists, as one flat list: every file that a depot holds and a bundle carries. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KINDS = ("package", "image", "model", "python", "project")


@dataclass(frozen=True)
class Part:
    """One file: its kind, what it belongs to, its place in a depot's view, its bytes, and where they came from.

    ``name`` and ``version`` are the artefact's (a package, an image's key, a model, a distribution of Python); several
    parts share them where an artefact has several files. ``path`` is relative to the site's view.
    """

    kind: str
    name: str
    version: str
    path: str
    sha256: str
    size: int
    origin: str = ""
    platform: str = ""


def parts(lock: Mapping[str, Any]) -> Iterator[Part]:
    """Yield every part of a parsed lock, in the order of their paths within each kind. Raises KeyError."""
    for platform, row in sorted(lock["platforms"].items()):
        base = f"packages/{platform}"
        for item in row["packages"]:
            yield Part(
                "package",
                item["name"],
                item["version"],
                f"{base}/{item['path']}",
                item["sha256"],
                item["size"],
                item["origin"],
                platform,
            )
        for item in row["indexes"]:  # made when the lock was: the repository's list of its packages
            path = f"{base}/{item['path']}"
            yield Part("package", "index", "", path, item["sha256"], item["size"], "lock", platform)
    for key, row in sorted(lock["images"].items()):
        for item in row["blobs"]:
            path = f"registry/{row['name']}/{item['role']}/{item['sha256']}"
            yield Part("image", key, row["tag"], path, item["sha256"], item["size"], row["origin"], item["platform"])
    for name, row in sorted(lock["models"].items()):
        for item in row["files"]:
            path = f"models/{name}/{row['revision'][:12]}/{item['path']}"
            yield Part("model", name, row["revision"], path, item["sha256"], item["size"], row["origin"])
    for item in lock["python"]["files"]:
        path = f"python/{item['file']}"
        yield Part("python", item["name"], item["version"], path, item["sha256"], item["size"], item["origin"])
    project = lock["project"]
    if project:
        path = f"project/{project['file']}"
        yield Part("project", "redoubt", project["version"], path, project["sha256"], project["size"], "project")
