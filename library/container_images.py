#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the container images of a host, each proved by its digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.docker_cli import Docker, NoEngine
from ansible.module_utils.artifacts.errors import Refusal, answer
from ansible.module_utils.artifacts.image_list import Image, parse_images
from ansible.module_utils.artifacts.images import (
    Settings,
    bring,
    make_private,
    missing,
    refuse_early,
    refuse_small_disk,
    verified,
)
from ansible.module_utils.artifacts.sources import CONTROLLER
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.run_lock import PATIENCE, only_run

DOCUMENTATION = r"""
module: container_images
short_description: Bring images into Docker from archives or a registry, by digest
description:
  - One C(docker image inspect) when all images are there. What is missing or has other bytes is loaded from an archive,
    hashed while it flows into C(docker load), or pulled by digest.
  - An archive's end is kept back until its SHA-256, its names and its config digest are proved; an engine that does
    not get the end loads nothing. The Id that the engine shows afterwards is compared too; other bytes are removed.
  - The classic image store shows the config digest as Id, containerd's store (the default of Docker 29) the manifest's;
    either may be given. That store makes a manifest of its own for an archive; its Id is then kept in O(state_file).
options:
  images:
    description: Images (key, name, tag, digest, config_digest, archive, archive_sha256, size).
    type: list
    elements: dict
    required: true
  source:
    description:
      - C(registry), or the folder of the archives as C(file:///folder) on this host or C(https://…).
      - C(controller) means that the archives of C(planned) were copied from the control host to where it said.
        They are deleted once loaded.
    type: str
    required: true
  state:
    description:
      - C(present) brings what is missing. C(planned) returns the archives that C(present) would need.
        C(verified) changes nothing and fails when an image is not as listed.
    type: str
    choices: [present, planned, verified]
    default: present
  strict: {description: "With C(verified), fail on a fault rather than only return it", type: bool, default: true}
  transfer_dir:
    description: Where archives from the control host arrive
    type: path
    default: /var/lib/redoubt/incoming/images
  ca_file: {description: Certificate authority for https; the system's when empty, type: str, default: ""}
  timeout: {description: Seconds that one image may take, type: int, default: 3600}
  state_file: {description: Ids of proved loads, type: path, default: /var/lib/redoubt/images.json}
  lock_timeout: {description: Seconds to wait for another run on this host to end, type: int, default: 900}
  progress_file:
    {description: Where progress is written, type: path, default: /var/lib/redoubt/progress/images.json}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Load the images from a mounted medium
  container_images:
    images: "{{ images_list }}"
    source: file:///media/redoubt/images
"""

RETURN = r"""
images: {description: "Per image ref, state (present, loaded, pulled), bytes, seconds", type: list, returned: present}
needed: {description: "Archives to bring (archive, size, folder)", type: list, returned: planned}
ok: {description: Whether all images are as listed, type: bool, returned: verified}
bytes: {description: Bytes read, type: int, returned: present}
seconds: {description: Time taken, type: float, returned: always}
"""


def run(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what the parameters say; returns the module's result, with ``failed`` in it for a fault. Raises Refusal."""
    transfer = Path(params["transfer_dir"])
    source = f"file://{transfer}" if params["source"] == CONTROLLER else params["source"]
    images = parse_images(params["images"], source)
    docker = Docker(params["timeout"])
    settings = Settings(
        Path(params["state_file"]), Path(params["progress_file"]), params["timeout"], params["ca_file"], check
    )
    if params["state"] == "verified":
        verdicts = verified(docker, images, settings)
        texts = [verdict["detail"] for verdict in verdicts if not verdict["ok"]]
        result: dict[str, Any] = {"changed": False, "ok": not texts, "images": verdicts}
        if texts and params["strict"]:
            result["failed"] = True
            result["msg"] = str(Refusal([*texts, "Run site.yml to bring these images again"]))
        return result
    with _alone(settings, params["lock_timeout"]):
        lacking = missing(docker, images, settings)
        root = _root(docker, check) if lacking else None
        if params["state"] == "planned":
            return {"changed": False, "needed": _needed(lacking, root, transfer, check)}
        if lacking:
            refuse_early(lacking, source, settings, root)
        done = {} if check else {item["ref"]: item for item in bring(docker, lacking, source, settings)}
        if params["source"] == CONTROLLER and not check:
            shutil.rmtree(transfer, ignore_errors=True)
    return {
        "changed": bool(lacking),
        "images": [
            done.get(image.ref, {"ref": image.ref, "state": "missing" if image in lacking else "present"})
            for image in images
        ],
        "bytes": sum(item["bytes"] for item in done.values()),
        "diff": {"before": "", "after": "".join(f"{image.ref} {_identity(image)}\n" for image in lacking)},
    }


@contextmanager
def _alone(settings: Settings, patience: float) -> Iterator[None]:
    """No other run brings images to this host; in check mode it does not matter. Raises Busy."""
    if settings.check:
        yield
        return
    folder = settings.state_file.parent
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder / ".images.lock", "the container images", patience):
        yield


def _needed(images: Sequence[Image], root: Path | None, transfer: Path, check: bool) -> list[dict[str, Any]]:
    """The archives to send, and where to; there is room for them. Raises Refusal."""
    refuse_small_disk(images, root)
    if images and not check:
        make_private(transfer)
        refuse_small_disk(images, transfer)
    archives = {image.archive or "": image.size for image in images}
    return [
        {"archive": name, "size": size, "folder": f"{(transfer / name).parent}/"}
        for name, size in sorted(archives.items())
    ]


def _root(docker: Docker, check: bool) -> Path | None:
    try:
        root: Path = docker.root()
        return root
    except NoEngine:
        if check:
            return None
        raise


def _identity(image: Image) -> str:
    return str(image.config_digest or image.digest)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "str", "required": True},
            "state": {"choices": ["present", "planned", "verified"], "default": "present"},
            "strict": {"type": "bool", "default": True},
            "transfer_dir": {"type": "path", "default": "/var/lib/redoubt/incoming/images"},
            "ca_file": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 3600},
            "lock_timeout": {"type": "int", "default": PATIENCE},
            "state_file": {"type": "path", "default": "/var/lib/redoubt/images.json"},
            "progress_file": {"type": "path", "default": "/var/lib/redoubt/progress/images.json"},
        },
        supports_check_mode=True,
    )
    # The client's messages are matched, so they must be in English.
    os.environ.update({"LC_ALL": "C", "LANGUAGE": "C"})
    answer(module, run, "docker")


if __name__ == "__main__":
    main()
