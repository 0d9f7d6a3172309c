# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Images, containers and weights of this host by their digests. Standard library only, Python 3.9+."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ansible.module_utils.artifacts.docker_cli import Docker, NoEngine
from ansible.module_utils.artifacts.holdings import Held, holdings, references
from ansible.module_utils.artifacts.image_list import Image, is_wanted, parse_images
from ansible.module_utils.artifacts.images import read_records
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.artifacts.transfer import hash_file
from ansible.module_utils.programs import ask

from .document import Gathered

IMAGES_RECORD = "/var/lib/redoubt/images.json"
SECONDS = 60
UNKNOWN = "a file that the store proved"
# Containers of our compose files; those that build or convert something come and go.
OURS = ("/opt/redoubt/", "/etc/redoubt/", "/var/lib/redoubt/", "/srv/redoubt/")


def gather_images(gathered: Gathered, rows: Sequence[Mapping[str, Any]], record: Path = Path(IMAGES_RECORD)) -> None:
    """Fill `images` with those of the plan, `containers` with those of our compose files. Raises Refusal.

    An image is named by its config digest, or by its manifest's where nobody knows that, so that it does not matter
    which kind of store the engine has. A host without an engine has neither.
    """
    images = parse_images([{**row, "archive": row.get("archive") or "unknown"} for row in rows], "")
    known = read_records(record)
    identities: Dict[str, str] = {}
    try:
        found = Docker(SECONDS).inspect([image.ref for image in images])
    except NoEngine:
        found = {image.ref: None for image in images}
    for image in images:
        here = found[image.ref]
        wanted = image.config_digest or image.digest or ""
        gathered.recorded["images"][image.ref] = {"digest": wanted}
        identities[str(known.get(image.ref, {}).get("id", ""))] = wanted  # by which the engine knows a proved load
        if here is None:
            continue
        right = is_wanted(image, here, known.get(image.ref))
        gathered.sections["images"][image.ref] = {"digest": wanted if right else here.id}
        if right:
            identities[here.id] = wanted
    _containers(gathered, images, identities)


def _containers(gathered: Gathered, images: Sequence[Image], identities: Mapping[str, str]) -> None:
    status, output, _ = ask(["docker", "ps", "--all", "--quiet", "--no-trunc"], SECONDS)
    ids = output.split() if status == 0 else []
    status, output, _ = ask(["docker", "inspect", "--type", "container", *ids], SECONDS) if ids else (0, "[]", "")
    documents: List[Dict[str, Any]] = json.loads(output) if status == 0 else []
    refs = {image.ref: image.config_digest or image.digest or "" for image in images}
    for item in documents:
        labels = item["Config"].get("Labels") or {}
        if not labels.get("com.docker.compose.project.config_files", "").startswith(OURS):
            continue
        name, ref = item["Name"].lstrip("/"), item["Config"].get("Image", "")
        image = item.get("Image", "")
        gathered.sections["containers"][name] = {
            "image": identities.get(image, image),
            "status": item["State"]["Status"],
        }
        if ref in refs:
            gathered.recorded["containers"][name] = {"image": refs[ref]}


def gather_weights(gathered: Gathered, directory: Path, state: Path, releases: Path, deep: bool) -> None:
    """Fill `weights` with the files of the trees that the release in service has, by path. Raises OSError.

    Without such a release all trees count. A file that was proved and that nothing touched since is not read again,
    unless `deep`. Nothing is written.
    """
    store = Store(directory, state)
    if not directory.is_dir():
        return
    ledger = Ledger.read(store.ledger_file)
    used = references(store, releases)
    current = {tree for tree, numbers in used.by_tree.items() if used.current in numbers} if used.current else set()
    for item in holdings(store, ledger):
        places = [place for place in item.places if not str(place).startswith(f"{store.blobs.root}/")]
        if not places:
            continue
        found = _digest(item, ledger, deep)
        for place in places:
            name = str(place.relative_to(store.models))
            tree = "/".join(name.split("/")[:2])
            row, said = {"sha256": found}, {"sha256": item.sha256 or UNKNOWN}
            if not current or tree in current:
                gathered.sections["weights"][name] = row
                gathered.recorded["weights"][name] = {**said}
            else:
                gathered.local["weights"][name] = row
                gathered.recorded_local["weights"][name] = {**said}


def _digest(item: Held, ledger: Ledger, deep: bool) -> str:
    """The SHA-256 of a file of the store, read only where that is in doubt."""
    known: Optional[str] = None if deep else ledger.digest(item.status)
    if known is not None:
        return known
    try:
        digest: str = hash_file(item.shown, lambda _: None)[0]
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return digest
