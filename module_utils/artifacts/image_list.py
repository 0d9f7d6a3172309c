"""The images that a host shall have, as the lock states them, and how to know them in an engine. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import Refusal
from .manifest import SHA256, path_problem

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
NAME = re.compile(r"[a-z0-9]+(?:[._:/-]+[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
REGISTRY = "registry"
MIRRORED = "registry://"  # before HOST:PORT[/PREFIX]: one registry that has all images below its own name


@dataclass(frozen=True)
class Image:
    """One image by name, tag and the digests that say which bytes it is.

    ``digest`` is the one of its manifest (what a registry serves), ``config_digest`` the one of its configuration
    (which names every layer's digest, so it fixes all bytes).
    """

    name: str
    tag: str
    digest: str | None = None
    config_digest: str | None = None
    archive: str | None = None
    archive_sha256: str | None = None
    size: int = 0

    @property
    def ref(self) -> str:
        """Return name:tag, by which Compose finds it."""
        return f"{self.name}:{self.tag}"

    @property
    def pinned(self) -> str:
        """Return name@digest, by which a registry serves it."""
        return f"{self.name}@{self.digest}"


@dataclass(frozen=True)
class Found:
    """An image as an engine describes it."""

    id: str
    repo_digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Found:
        """Read one item of what ``docker image inspect`` prints."""
        return cls(
            str(document.get("Id", "")),
            tuple(document.get("RepoDigests") or ()),
            tuple((document.get("RootFS") or {}).get("Layers") or ()),
        )


def parse_images(raw: Sequence[Mapping[str, Any]], source: str) -> list[Image]:
    """Turn ``[{name, tag, digest, config_digest, archive, archive_sha256, size}]`` into images.

    Raises Refusal with every problem, above all for an image that only a tag describes.
    """
    problems: list[str] = []
    images: dict[str, Image] = {}
    for index, item in enumerate(raw):
        where = f"image {item.get('key') or item.get('name') or f'number {index + 1}'}"
        found = list(_problems(item, source))
        problems += [f"{where}: {problem}" for problem in found]
        if found:
            continue
        image = Image(
            str(item["name"]),
            str(item["tag"]),
            item.get("digest") or None,
            item.get("config_digest") or None,
            item.get("archive") or None,
            item.get("archive_sha256") or None,
            int(item.get("size") or 0),
        )
        if images.setdefault(image.ref, image) != image:
            problems.append(f"{where}: {image.ref} is listed twice, with different bytes")
    if problems:
        raise Refusal(problems)
    return list(images.values())


def _problems(item: Mapping[str, Any], source: str) -> Iterator[str]:
    name, tag, ref = item.get("name"), item.get("tag"), item.get("ref")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"name is {name!r}, not an image name such as vllm/vllm-openai"
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        yield f"tag is {tag!r}, not an image tag such as v0.32.0 (in quotes)"
    if ref and ref != f"{name}:{tag}":
        yield f"ref is {ref!r}, which is not {name}:{tag}"
    for key in ("digest", "config_digest"):
        value = item.get(key)
        if value and not (isinstance(value, str) and DIGEST.fullmatch(value)):
            yield f"{key} is {value!r}, not sha256: and 64 lower-case hex digits"
    if not item.get("digest") and not item.get("config_digest"):
        yield "has a tag but no digest and no config_digest; a tag can move to other bytes: add one to redoubt_images"
    if from_registry(source):
        if not item.get("digest"):
            yield "has no digest, and a registry is asked by digest only; add it, or set images_source to a folder"
        return
    archive, digest = item.get("archive"), item.get("archive_sha256")
    wrong = path_problem(archive)
    if not archive:
        yield "has no archive to load; name its file, or set images_source to registry"
    elif wrong:
        yield f"archive {archive!r} {wrong}; use a file name below images_source"
    if digest and not (isinstance(digest, str) and SHA256.fullmatch(digest)):
        yield f"archive_sha256 is {digest!r}, not 64 lower-case hex digits"


def from_registry(source: str) -> bool:
    """Tell whether images are pulled by digest, from their own registries or from one for all."""
    return source == REGISTRY or source.startswith(MIRRORED)


def pulled_as(image: Image, source: str) -> str:
    """Return the name by which a registry is asked: the image's own, or below that of the one registry for all."""
    return f"{source[len(MIRRORED) :].rstrip('/')}/{image.pinned}" if source.startswith(MIRRORED) else image.pinned


def familiar(ref: str) -> str:
    """Return a name as Docker shows it: docker.io/library/nginx:1 and nginx:1 are the same."""
    for prefix in ("docker.io/", "index.docker.io/"):
        if ref.startswith(prefix):
            ref = ref[len(prefix) :]
    first, _, rest = ref.partition("/")
    return rest if first == "library" and rest and "/" not in rest else ref


def is_wanted(image: Image, found: Found | None, recorded: Mapping[str, Any] | None = None) -> bool:
    """Tell whether an engine's image is exactly the wanted one.

    An engine with the classic image store uses the config digest as the image's Id; with containerd's store (the
    default of Docker 29) the Id is the manifest's digest. That store makes a manifest of its own for what it loads
    from an archive; its digest is in no lock, so what a proved load ended in is ``recorded``.
    """
    if found is None or not found.id:
        return False
    if found.id in (image.config_digest, image.digest):
        return True
    if image.config_digest is None and image.digest is not None:
        return any(item.partition("@")[2] == image.digest for item in found.repo_digests)
    return bool(recorded) and dict(recorded or {}) == record(image, found)


def record(image: Image, found: Found) -> dict[str, Any]:
    """Return what to remember of a proved load."""
    return {"id": found.id, "config_digest": image.config_digest, "digest": image.digest}
