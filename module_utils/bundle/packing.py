# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Which bytes go into which volume. Pure: the same contents and sizes always give the same volumes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible.module_utils.artifacts.errors import Refusal

MIB = 1024 * 1024
PIECE = 1024 * MIB  # far below FAT's limit of 4 GiB less a byte; what is copied again when one is bad
LONGEST_PIECE = 4 * 1024 * MIB - 1
BLOCK = 32 * 1024  # a file takes whole blocks of a medium
ROW = 320  # what a piece adds to the list of its volume
LEAST_CUT = 64 * MIB  # no file is cut for the sake of less room than this
LEAST_VOLUME = MIB
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class Cut:
    """A piece to be: so many bytes of a blob from an offset, in a volume (counted from 1)."""

    blob: str
    offset: int
    size: int
    volume: int


def parse_size(text: str) -> int:
    """Return bytes: 4G is 4,000,000,000 as on a medium's label, 4Gi is 4,294,967,296. Raises Refusal."""
    found = re.fullmatch(r"([0-9]+)\s*((?:[KMGT]I?)?)B?", text.strip().upper())
    if not found or not int(found.group(1)):
        raise Refusal(f"{text!r} is no size such as 4G, 25G or 700Mi")
    return int(found.group(1)) * UNITS[found.group(2)]


def cuts(contents: Mapping[str, int], piece: int, room: int | None) -> list[Cut]:
    """Return the pieces of all contents in their order, filling one volume of `room` bytes after the other.

    Without `room` there is one volume. Raises Refusal.
    """
    if not 0 < piece <= LONGEST_PIECE:
        raise Refusal(f"pieces of {piece} bytes cannot stand on every medium; the most is {LONGEST_PIECE}")
    if room is not None and room < LEAST_VOLUME:
        raise Refusal(
            f"volumes are too small: after the manifest {max(room, 0)} bytes are left on each for content, and the "
            f"least is {LEAST_VOLUME}; choose a larger volume size"
        )
    found: list[Cut] = []
    volume, free = 1, room
    least = min(LEAST_CUT, (room or 0) // 4)
    for blob, size in contents.items():
        offset = 0
        while True:
            want = min(piece, size - offset)
            if free is not None and room is not None and cost(want) > free:
                fits = (free - ROW) // BLOCK * BLOCK
                if min(fits, want) < max(least, BLOCK):
                    volume, free = volume + 1, room
                    continue
                want = min(fits, want)
            found.append(Cut(blob, offset, want, volume))
            free = None if free is None else free - cost(want)
            offset += want
            if offset >= size:
                break
    return found


def cost(size: int) -> int:
    """Return what a file of this size takes of a volume's room."""
    return -(-size // BLOCK) * BLOCK + ROW
