"""Everything that the lab builds: what is missing is built, what is there is reused, and the lock file lists it."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import docker
from docker.errors import ImageNotFound

from lab import archive, debian, paths, recipe_host
from lab.report import Report
from lab.tools import file_lock, write_private

PLATFORMS = tuple(recipe_host.SUITES)


def key_of(*parts: str) -> str:
    """The key of something built from these inputs: no two different lists of parts share one."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def host_key(platform: str) -> str:
    """The key of a host image."""
    source = inspect.getsource(recipe_host)
    return key_of(str(archive.FORMAT), platform, source, *debian.machine_options())


def host_image(client: docker.DockerClient, platform: str, report: Report) -> str:
    """The name of the image for hosts of this platform, built and loaded into the engine where needed."""
    key = host_key(platform)
    with file_lock(f"image-{platform}"):
        record = paths.STATE / "built" / f"host-{platform}.json"
        known: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
        tar = paths.HOST_IMAGES / f"host-{platform}-{key[:8]}.tar"
        if known.get("key") != key or not tar.exists():
            for folder in (paths.HOST_IMAGES, paths.WORK):
                folder.mkdir(parents=True, exist_ok=True)
            image = recipe_host.build(platform, key, tar, paths.WORK, report, threading.Event())
            known = {"key": key, **image.as_dict()}
            write_private(record, json.dumps(known) + "\n")
        try:
            client.images.get(known["config_digest"]).tag(known["name"], known["tag"])
        except ImageNotFound:
            with report.phase(f"Load the host image for {platform}"), tar.open("rb") as handle:
                client.images.load(handle)
        return f"{known['name']}:{known['tag']}"
