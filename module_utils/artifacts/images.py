"""What the module container_images does: find out which images are missing, bring them, prove them."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .docker_cli import Docker, NoEngine
from .errors import Refusal
from .image_archive import ArchiveWatcher, Content, archive_problems
from .image_list import MIRRORED, Found, Image, from_registry, is_wanted, pulled_as, record
from .progress import Progress, write_json
from .sources import Source, make_source

DEPOT_HINT = (
    "the depot must have what lock/images.yml lists: on a site with a network run `./redoubt play gather`, on one "
    "without a network `./redoubt bundle import` with a medium that has it"
)
# An engine unpacks an archive beside its images before it takes the layers over.
TEMPORARY_COPIES = 1


@dataclass(frozen=True)
class Settings:
    """How to work: where proved loads and progress are written, and with which addresses and limits."""

    state_file: Path
    progress_file: Path
    timeout: float = 3600
    ca_file: str = ""
    check: bool = False


def missing(docker: Docker, images: Sequence[Image], settings: Settings) -> list[Image]:
    """Return the images that the engine lacks or has with other bytes. Raises Refusal.

    In check mode a host without an engine, as it is before its first run, lacks them all.
    """
    try:
        found = docker.inspect([image.ref for image in images])
    except NoEngine:
        if settings.check:
            return list(images)
        raise
    known = read_records(settings.state_file)
    return [image for image in images if not is_wanted(image, found[image.ref], known.get(image.ref))]


def verified(docker: Docker, images: Sequence[Image], settings: Settings) -> list[dict[str, Any]]:
    """Return one verdict per image, ``{ref, ok, detail}``. Raises Refusal when no engine answers."""
    wrong = missing(docker, images, settings)
    found = docker.inspect([image.ref for image in wrong])
    verdicts = []
    for image in images:
        here = found.get(image.ref)
        detail = f"the engine has {here.id}" if here else "the engine has no such image"
        ok = image not in wrong
        wanted = image.config_digest or image.digest
        verdicts.append(
            {"ref": image.ref, "ok": ok, "detail": "" if ok else f"{image.ref}: expected {wanted}, {detail}"}
        )
    return verdicts


def bring(docker: Docker, images: Sequence[Image], source_text: str, settings: Settings) -> list[dict[str, Any]]:
    """Bring images that are missing; return ``{ref, state, bytes, seconds}`` for each. Raises Refusal and OSError.

    What was brought before a refusal stays; what is refused leaves nothing under its name.
    """
    progress = Progress(settings.progress_file, "images", sum(image.size for image in images))
    done: list[dict[str, Any]] = []
    if from_registry(source_text):
        for image in images:
            done += _timed([image], "pulled", lambda image=image: _pull(docker, image, source_text, progress))
    else:
        source = make_source(source_text, "images_source", settings.ca_file, 60)
        for archive in sorted({image.archive for image in images if image.archive}):
            group = [image for image in images if image.archive == archive]
            done += _timed(group, "loaded", lambda group=group: _load(docker, group, source, settings, progress))
    progress.finish()
    return done


def refuse_early(images: Sequence[Image], source_text: str, settings: Settings, root: Path | None) -> None:
    """Raise Refusal, while nothing has changed, for archives that are not there or a disk that is too small.

    ``root`` is where the engine keeps images; None when there is no engine yet.
    """
    if not from_registry(source_text):
        source = make_source(source_text, "images_source", settings.ca_file)
        archives = sorted({image.archive or "" for image in images})
        problems = [f"archive {problem}" for archive in archives if (problem := source.problem(archive, None))]
        if problems:
            raise Refusal([*problems, "Is the medium mounted, and does images_source name its folder?"])
    refuse_small_disk(images, root)


def refuse_small_disk(images: Sequence[Image], folder: Path | None) -> None:
    """Raise Refusal when the images do not fit where they go."""
    if folder is None or not folder.is_dir() or not images:
        return
    disk = os.statvfs(folder)
    needed = sum(image.size for image in images) + TEMPORARY_COPIES * max(image.size for image in images)
    short = needed - disk.f_bavail * disk.f_frsize
    if short > 0:
        raise Refusal(
            f"{folder}: needs {short} more bytes: {needed} for {len(images)} images and their unpacking, "
            f"{needed - short} are free"
        )


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter, and those above it as usual. Raises OSError."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir()
            path.chmod(0o700 if path == folder else 0o755)


def _timed(images: Sequence[Image], state: str, work: Any) -> list[dict[str, Any]]:
    start = time.monotonic()
    count: int = work()
    seconds = round(time.monotonic() - start, 1)
    return [{"ref": image.ref, "state": state, "bytes": count, "seconds": seconds} for image in images]


def _pull(docker: Docker, image: Image, source: str, progress: Progress) -> int:
    pinned = pulled_as(image, source)
    before = docker.inspect([image.ref])[image.ref]
    try:
        docker.pull(pinned)
    except Refusal as refusal:
        hint = DEPOT_HINT if source.startswith(MIRRORED) else "does images_source fit, is its digest there?"
        raise Refusal(f"image {image.ref}: {refusal}; {hint}") from refusal
    docker.tag(pinned, image.ref)
    _prove(docker, image, before, None)
    if pinned != image.pinned and image.config_digest:
        docker.remove(pinned)  # only the name goes: a host that has the image from elsewhere has the same names
    progress.add(image.size, image.ref)
    return image.size


def _load(docker: Docker, images: Sequence[Image], source: Source, settings: Settings, progress: Progress) -> int:
    """Load one archive that carries these images and no other."""
    archive = images[0].archive or ""
    before = docker.inspect([image.ref for image in images])
    watcher = ArchiveWatcher()
    reader = source.open(archive, None)
    loaded = 0

    def tick(count: int) -> None:
        nonlocal loaded
        loaded += count
        progress.add(count, archive)

    try:
        docker.load(
            reader,
            images[0].archive_sha256,
            watcher.feed,
            lambda: archive_problems(images, watcher.contents()),
            tick,
        )
    except Refusal as refusal:
        texts = [f"archive {source.describe(archive)}: {problem}" for problem in refusal.problems]
        raise Refusal([*texts, "Nothing of it was loaded; bring the archive that the lock describes"]) from refusal
    finally:
        reader.close()
    for image in images:
        _prove(docker, image, before[image.ref], watcher.contents())
    _remember(docker, images, settings)
    return loaded


def _prove(docker: Docker, image: Image, before: Found | None, contents: Sequence[Content] | None) -> None:
    """Compare what the engine has now; when it is not the wanted image, take it away again. Raises Refusal."""
    found = docker.inspect([image.ref])[image.ref]
    if is_wanted(image, found) or (found and image.config_digest and _same_layers(image, found, contents)):
        return
    fate = _take_back(docker, image.ref, before, found)
    raise Refusal(
        f"image {image.ref}: expected config digest {image.config_digest} or digest {image.digest}, "
        f"the engine has {found.id if found else 'nothing'} under this name; {fate}"
    )


def _take_back(docker: Docker, ref: str, before: Found | None, found: Found | None) -> str:
    """Undo a load or a pull of wrong bytes; return what came of it, for the operator."""
    if found is None:
        return "it was not there after loading"
    if before is None:
        docker.remove(ref)
        return "it was removed again"
    if before.id == found.id:
        return "it was there before and stays"
    try:
        docker.tag(before.id, ref)
    except Refusal as refusal:
        docker.remove(ref)
        return f"it was removed; the image that had the name before is gone ({refusal})"
    with contextlib.suppress(Refusal):  # it may have other names
        docker.remove(found.id)
    return f"it was removed, and {before.id} has the name again"


def _same_layers(image: Image, found: Found, contents: Sequence[Content] | None) -> bool:
    """Tell whether the engine holds the proved content of an archive under an Id of its own making.

    containerd's store does so. With the classic store the Id is the config digest, and this is never asked.
    """
    return any(
        content.config_digest == image.config_digest and content.layers == found.layers for content in contents or ()
    )


def read_records(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read what proved loads ended in, by ref; nothing when unreadable, so that images are loaded again."""
    try:
        document = json.loads(path.read_text())
        return {str(ref): item for ref, item in document["images"].items() if isinstance(item, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(docker: Docker, images: Sequence[Image], settings: Settings) -> None:
    known = read_records(settings.state_file)
    found = docker.inspect([image.ref for image in images])
    for image in images:
        here = found[image.ref]
        if here and not is_wanted(image, here):
            known[image.ref] = record(image, here)
        else:
            known.pop(image.ref, None)
    if known or settings.state_file.exists():
        write_json(settings.state_file, {"schema": 1, "images": known})
