# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""What a site's view holds, from its lock alone: links to blobs, and the texts that are made for readers. Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.manifest import SHA256, parents, path_problem
from ansible.module_utils.lock.parts import parts

# A site's name is a folder, a segment of an address, and the first segment of an image's name.
SITE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
IMAGE = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
SHORT = 12
LONGEST_SITE = 64
# Nginx tells a manifest's media type by the name under which it finds the file.
MANIFEST_SUFFIXES = {
    "application/vnd.oci.image.manifest.v1+json": "oci-manifest",
    "application/vnd.oci.image.index.v1+json": "oci-index",
    "application/vnd.docker.distribution.manifest.v2+json": "docker-manifest",
    "application/vnd.docker.distribution.manifest.list.v2+json": "docker-list",
}
MADE = re.compile(r"packages/[^/]+/(?:(?:.*/)?by-hash/|(?:In)?Release(?:\.gpg)?$|repodata/repomd\.xml\.asc$)")
PAGE = "<!DOCTYPE html>\n<html>\n<head><title>{title}</title></head>\n<body>\n{links}</body>\n</html>\n"


@dataclass(frozen=True)
class Layout:
    """A view: ``links`` as {path: (sha256, size)}, ``texts`` as {path: bytes}, ``repositories`` as {folder: suffix}.

    Paths are relative to the view. A repository's suffix is ``deb`` or ``rpm``.
    """

    site: str
    digest: str
    serial: int
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, str] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """Return the view's folder below those of its site."""
        return self.digest[:SHORT]


def layout(lock: Mapping[str, Any]) -> Layout:
    """Return the view of a lock. Raises Refusal with every problem: names and paths that cannot be used, clashes."""
    problems = list(_identity_problems(lock))
    if problems:
        raise Refusal(problems)
    match = DIGEST.fullmatch(lock["digest"])
    made = Layout(lock["site"], match.group(1) if match else "", lock["serial"])
    try:
        rows = list(_rows(lock))
    except (KeyError, TypeError) as error:
        raise Refusal(f"the lock of site {made.site} lacks {error}; write it again with the playbook lock") from error
    folders: set[str] = set()
    for path, sha256, size in rows:
        wrong = path_problem(path) or _figures_problem(sha256, size)
        known = made.links.setdefault(path, (sha256, size))
        if wrong:
            problems.append(f"{path}: {wrong}")
        elif known != (sha256, size):
            problems.append(f"{path}: is listed with two contents, {known[0][:SHORT]} and {sha256[:SHORT]}")
        folders.update(parents(path))
    made.texts.update(_simple_pages(lock))
    for path in sorted(folders & {*made.links, *made.texts}):
        problems.append(f"{path}: is listed as a file and as a folder")
    problems += [f"{path}: is a name that the depot makes itself" for path in sorted(made.texts.keys() & made.links)]
    problems += [f"{path}: is a name that the depot makes itself" for path in sorted(made.links) if MADE.match(path)]
    problems += _image_problems(lock)
    for platform, row in sorted(lock["platforms"].items()):
        rpm = any(item["path"].endswith(".rpm") for item in row["packages"])
        made.repositories[f"packages/{platform}"] = "rpm" if rpm else "deb"
    if problems:
        raise Refusal([f"lock of site {made.site}: {problem}" for problem in problems])
    return made


def is_site(name: object) -> bool:
    """Tell whether this can be the name of a site."""
    return isinstance(name, str) and len(name) <= LONGEST_SITE and SITE.fullmatch(name) is not None


def _identity_problems(lock: Mapping[str, Any]) -> Iterator[str]:
    site, serial = lock.get("site"), lock.get("serial")
    if not is_site(site):
        yield (
            f"site is {site!r}; a site's name has at most {LONGEST_SITE} lower-case letters and digits, and between "
            "them '-', '_' or '.'"
        )
    if not isinstance(serial, int) or isinstance(serial, bool) or serial < 1:
        yield f"serial is {serial!r}, not a number from 1 on"
    if not isinstance(lock.get("digest"), str) or not DIGEST.fullmatch(lock["digest"]):
        yield f"digest is {lock.get('digest')!r}, not sha256: and 64 lower-case hex digits"
    if lock.get("schema") != 1:
        yield f"schema is {lock.get('schema')!r}; this version of the project reads schema 1"


def _figures_problem(sha256: object, size: object) -> str | None:
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        return f"sha256 is {sha256!r}, not 64 lower-case hex digits"
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return f"size is {size!r}, not a number of bytes"
    return None


def _rows(lock: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    for part in parts(lock):
        yield part.path, part.sha256, part.size
        if part.kind == "model":
            # The way in which hosts fetch: the same bytes of two revisions are asked for under one address.
            yield f"blobs/sha256/{part.sha256[:2]}/{part.sha256}", part.sha256, part.size
    for row in lock["images"].values():
        for item in row["blobs"]:
            suffix = MANIFEST_SUFFIXES.get(item["media_type"])
            if item["role"] == "manifests" and suffix:
                path = f"registry/{row['name']}/manifests/{item['sha256']}.{suffix}"
                yield path, item["sha256"], item["size"]


def _image_problems(lock: Mapping[str, Any]) -> Iterator[str]:
    for key, row in sorted(lock["images"].items()):
        if not IMAGE.fullmatch(row["name"]):
            yield f"image {key}: name is {row['name']!r}; a registry takes lower-case letters, digits and . _ - /"
        for item in row["blobs"]:
            if item["role"] == "manifests" and item["media_type"] not in MANIFEST_SUFFIXES:
                known = ", ".join(MANIFEST_SUFFIXES)
                yield f"image {key}: a manifest of type {item['media_type']!r} cannot be served; known are {known}"


def normalized(name: str) -> str:
    """Return a Python distribution's name as an index has it: 'Foo.Bar_baz' is 'foo-bar-baz'."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _simple_pages(lock: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the pages of the index that pip reads."""
    projects: dict[str, dict[str, str]] = {}
    for item in lock["python"]["files"]:
        projects.setdefault(normalized(item["name"]), {})[item["file"]] = item["sha256"]
    if projects:
        yield "python/simple/index.html", _page("Projects", [(f"{name}/", name) for name in sorted(projects)])
    for name, files in sorted(projects.items()):
        links = [(f"../../{file}#sha256={sha256}", file) for file, sha256 in sorted(files.items())]
        yield f"python/simple/{name}/index.html", _page(name, links)


def _page(title: str, links: list[tuple[str, str]]) -> bytes:
    rows = "".join(f'<a href="{html.escape(to)}">{html.escape(text)}</a><br>\n' for to, text in links)
    return PAGE.format(title=html.escape(title), links=rows).encode()
