"""A file as pieces of one size, and how far each of them is. Not locked: its owner sees to that."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
SMALL = 16 * MIB
LARGE = 64 * MIB
HUGE_FILE = 64 << 30

MISSING, BUSY, HERE, CLAIMED, PROVED = range(5)


def piece_size_for(size: int) -> int:
    """Return the bytes of a piece for a file of this size."""
    return SMALL if size <= HUGE_FILE else LARGE


@dataclass(frozen=True)
class Cut:
    """How a file of `size` bytes is cut into pieces of `piece` bytes; the last one may be shorter."""

    size: int
    piece: int

    @property
    def count(self) -> int:
        """Number of pieces; an empty file has one empty piece."""
        return max(1, -(-self.size // self.piece))

    def span(self, index: int) -> tuple[int, int]:
        """Return where a piece starts and where it stops (the first byte after it)."""
        return index * self.piece, min((index + 1) * self.piece, self.size)

    def length(self, index: int) -> int:
        """Return the bytes of a piece."""
        start, stop = self.span(index)
        return stop - start


class Pieces:
    """The state of each piece: missing, busy (a connection has it), here, claimed (by the journal), proved."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.state = bytearray(cut.count)
        self.crc: dict[int, int] = {}
        self.giver: dict[int, str] = {}
        self.broken: dict[int, tuple[int, int]] = {}

    def claim(self, index: int, crc: int, giver: str) -> None:
        """Note what the journal says of a piece."""
        self.state[index] = CLAIMED
        self.crc[index], self.giver[index] = crc, giver

    def take(self) -> int | None:
        """Give the first missing piece to a connection."""
        index = self.state.find(MISSING)
        if index < 0:
            return None
        self.state[index] = BUSY
        return index

    def give_back(self, index: int, done: int = 0, crc: int = 0, giver: str = "") -> None:
        """Take a piece back from a connection that broke after `done` bytes, so that the next one goes on there."""
        self.state[index] = MISSING
        if done:
            self.broken[index] = (done, crc)
            self.giver[index] = giver

    def begun(self, index: int, giver: str) -> tuple[int, int]:
        """Return the bytes of a piece, and their CRC-32, that this source gave before its connection broke."""
        return self.broken.get(index, (0, 0)) if self.giver.get(index) == giver else (0, 0)

    def arrive(self, index: int, crc: int, giver: str) -> None:
        """Note that all bytes of a piece are in the file."""
        self.state[index] = HERE
        self.crc[index], self.giver[index] = crc, giver
        self.broken.pop(index, None)

    def drop(self, index: int) -> None:
        """Note that a piece must be fetched again from its first byte."""
        self.state[index] = MISSING
        self.broken.pop(index, None)
        self.crc.pop(index, None)
        self.giver.pop(index, None)

    def drop_all(self) -> None:
        """Note that every piece must be fetched again."""
        for index in range(self.cut.count):
            self.drop(index)

    @property
    def busy(self) -> int:
        """How many pieces connections have."""
        return self.state.count(BUSY)

    @property
    def has_missing(self) -> bool:
        """Whether a piece waits for a connection."""
        return self.state.find(MISSING) >= 0
