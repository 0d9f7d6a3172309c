"""Looking into an image archive while it flows by: which names and which configurations does it carry? Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .image_list import Image, familiar

BLOCK = 512
# Types without data after the header: links, devices, folders, FIFOs.
BARE_TYPES = b"123456"
LARGEST_KEPT = 1024 * 1024
MOST_KEPT = 64 * 1024 * 1024
PAX_RECORD = re.compile(rb"(\d+) ([^=]+)=")


@dataclass(frozen=True)
class Content:
    """One image in an archive."""

    tags: tuple[str, ...]
    config_digest: str
    layers: tuple[str, ...]


class ArchiveWatcher:
    """Follows the bytes of a tar and keeps its small members, so that the archive is read only once.

    An archive that is compressed or no tar at all is not understood: ``contents`` is then None, and the engine's own
    word on the loaded image must do.
    """

    def __init__(self) -> None:
        self.understood = True
        self._header = bytearray()
        self._skip = 0
        self._left = 0
        self._padding = 0
        self._name = ""
        self._data: bytearray | None = None
        self._extended_size: int | None = None
        self._is_extended = False
        self._members: dict[str, bytes] = {}
        self._kept = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the archive."""
        view = memoryview(data)
        while view and self.understood:
            if self._left:
                count = min(self._left, len(view))
                if self._data is not None:
                    self._data += view[:count]
                self._left -= count
                view = view[count:]
                if not self._left:
                    self._end_member()
            elif self._skip:
                count = min(self._skip, len(view))
                self._skip -= count
                view = view[count:]
            else:
                count = min(BLOCK - len(self._header), len(view))
                self._header += view[:count]
                view = view[count:]
                if len(self._header) == BLOCK:
                    self._begin_member(bytes(self._header))
                    self._header.clear()

    def _begin_member(self, header: bytes) -> None:
        if not any(header):
            return
        if header[257:262] != b"ustar":
            self.understood = False
            return
        kind = header[156:157]
        try:
            size = _number(header[124:136])
        except ValueError:
            self.understood = False
            return
        self._is_extended = kind == b"x"
        if not self._is_extended and self._extended_size is not None and kind not in b"gLK":
            size, self._extended_size = self._extended_size, None
        if kind in BARE_TYPES and kind:
            size = 0
        name = header[:100].split(b"\0", 1)[0].decode(errors="replace")
        prefix = header[345:500].split(b"\0", 1)[0].decode(errors="replace")
        self._name = f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name
        keep = self._is_extended or kind in (b"0", b"\0")
        self._data = bytearray() if keep and size <= LARGEST_KEPT else None
        self._left = size
        self._padding = -size % BLOCK
        if not size:
            self._end_member()

    def _end_member(self) -> None:
        self._skip = self._padding
        data, self._data = self._data, None
        if data is None:
            return
        if self._is_extended:
            self._extended_size = _pax_size(bytes(data))
        elif self._kept + len(data) <= MOST_KEPT:
            self._kept += len(data)
            self._members[self._name.removeprefix("./")] = bytes(data)

    def contents(self) -> list[Content] | None:
        """Return the images of the archive, or None when it was not understood."""
        manifest = self._members.get("manifest.json")
        if not self.understood or manifest is None:
            return None
        try:
            found: list[Content] = []
            for item in json.loads(manifest):
                config = self._members[item["Config"]]
                layers: Any = json.loads(config).get("rootfs", {}).get("diff_ids") or ()
                digest = "sha256:" + hashlib.sha256(config).hexdigest()
                found.append(Content(tuple(item.get("RepoTags") or ()), digest, tuple(layers)))
            return found
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def archive_problems(images: Sequence[Image], contents: Sequence[Content] | None) -> list[str]:
    """Say what is wrong with an archive that shall bring ``images`` and nothing else; nothing if not understood."""
    if contents is None:
        return []
    problems: list[str] = []
    offered = {familiar(tag): content for content in contents for tag in content.tags}
    for image in images:
        content = offered.pop(familiar(image.ref), None)
        if content is None:
            names = ", ".join(sorted(tag for item in contents for tag in item.tags)) or "no name"
            problems.append(f"does not hold {image.ref}; it holds {names}")
        elif image.config_digest and content.config_digest != image.config_digest:
            problems.append(f"{image.ref}: expected config digest {image.config_digest}, found {content.config_digest}")
    if offered and not problems:
        problems.append(f"would also bring {', '.join(sorted(offered))}, which nobody asked for")
    return problems


def _number(field: bytes) -> int:
    """Read a tar number: octal text, or base 256 when the first bit is set. Raises ValueError."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.rstrip(b"\0 ").lstrip() or b"0", 8)


def _pax_size(data: bytes) -> int | None:
    """Return the size that an extended header gives the next member (files of 8 GiB and more have one)."""
    while match := PAX_RECORD.match(data):
        length = int(match[1])
        if length <= match.end() or length > len(data):
            return None
        if match[2] == b"size":
            value = data[match.end() : length - 1]
            return int(value) if value.isdigit() else None
        data = data[length:]
    return None
