"""Who brings which file from the origin, and from whom the others take it. Pure: every host comes to the same choice.

A host says of itself which files it needs, has, is bringing from the origin, and could not get (`Word`). Of those that
need a file, the one at place `rank % n` brings it; the others wait until somebody has it whole and proved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WAIT, ORIGIN, PEERS = "wait", "origin", "peers"


@dataclass(frozen=True)
class Word:
    """What a host says of itself: digests of files; `moved` counts bytes that arrived, `beat` the times it said so."""

    needs: frozenset[str] = frozenset()
    have: frozenset[str] = frozenset()
    doing: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    working: bool = False
    beat: int = 0
    moved: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        lists = {name: sorted(getattr(self, name)) for name in ("needs", "have", "doing", "failed")}
        return {"schema": 1, **lists, "working": self.working, "beat": self.beat, "moved": self.moved}


def parse_word(document: object) -> Word:
    """Read what another host says; what is not as it should be counts as not said."""
    if not isinstance(document, Mapping):
        return Word()

    def digests(name: str) -> frozenset[str]:
        found = document.get(name)
        return frozenset(item for item in found if isinstance(item, str)) if isinstance(found, list) else frozenset()

    def number(name: str) -> int:
        found = document.get(name)
        return found if isinstance(found, int) else 0

    return Word(
        needs=digests("needs"),
        have=digests("have"),
        doing=digests("doing"),
        failed=digests("failed"),
        working=document.get("working") is True,
        beat=number("beat"),
        moved=number("moved"),
    )


def ranks(files: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Give each file (digest, size) its place, the largest first, so that the hosts' shares are about equal."""
    order = sorted(dict(files).items(), key=lambda item: (-item[1], item[0]))
    return {sha256: place for place, (sha256, _) in enumerate(order)}


def choose(
    sha256: str, rank: int, me: str, words: Mapping[str, Word], lively: Collection[str]
) -> tuple[str, Sequence[str]]:
    """Say how a file comes to this host: (PEERS, those who have it), (ORIGIN, ()) or (WAIT, the one that brings it).

    `words` is of the hosts that answer; `lively` names those of them whose run goes on and gets somewhere.
    """
    holders = sorted(name for name, word in words.items() if name != me and sha256 in word.have)
    if holders:
        # Everybody begins at another one, so that not all take from the same host.
        first = (rank + sorted({*words, me}).index(me)) % len(holders)
        return PEERS, (*holders[first:], *holders[:first])
    others = [name for name in lively if name != me and sha256 in words[name].needs]
    doing = [name for name in others if sha256 in words[name].doing]
    if doing:
        return WAIT, doing
    sharers = sorted({me, *others})
    start = rank % len(sharers)
    for name in (*sharers[start:], *sharers[:start]):
        if name == me:
            return ORIGIN, ()
        if sha256 not in words[name].failed:
            return WAIT, (name,)
    return ORIGIN, ()
