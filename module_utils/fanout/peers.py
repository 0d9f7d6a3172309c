"""Talking with the other hosts: what they have, what this one says of itself, and which file may begin now."""

from __future__ import annotations

import functools
import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.progress import write_json
from ansible.module_utils.fetch.errors import Retry, Unusable
from ansible.module_utils.fetch.http import Client, Network
from ansible.module_utils.fetch.job import Job
from ansible.module_utils.fetch.web import BlobStore

from .choice import ORIGIN, PEERS, WAIT, Word, choose, parse_word, ranks

WORD_FILE = "word.json"
MOST_BYTES = 8 << 20  # of what another host says of itself
HOSTS_A_SECOND = 20  # so many hosts are asked each second at most


@dataclass(frozen=True)
class Patience:
    """Seconds: between looks; until all have begun; until a host is no longer waited for that gives no sign (silent),
    gets no byte of what it is bringing (still), or brings nothing at all although it is its turn (still, too)."""

    look: float = 1.0
    begin: float = 15.0
    silent: float = 20.0
    still: float = 120.0


@dataclass
class _Seen:
    """What was last seen of a host, and when something of it changed."""

    word: Word = field(default_factory=Word)
    answers: bool = False
    beat_at: float = 0.0
    moved_at: float = 0.0


class Fanout:
    """One run's part in the exchange. `address_of` is the base of each other host: {name: https://ADDRESS:PORT}."""

    def __init__(
        self,
        me: str,
        address_of: Mapping[str, str],
        network: Network,
        word_file: Path,
        patience: Patience = Patience(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.me = me
        self.stores = {name: BlobStore(base, network) for name, base in sorted(address_of.items()) if name != me}
        self.name_of = {store.name: name for name, store in self.stores.items()}
        self.warnings: list[str] = []
        self.bytes = 0  # of files that other hosts gave
        self._word_file, self._patience, self._clock = word_file, patience, clock
        self._word = Word(working=True)
        self._ranks: dict[str, int] = {}
        self._seen = {name: _Seen() for name in self.stores}
        self._distrusted: set[str] = set()
        self._idle_since: dict[tuple[str, str], float] = {}
        self._clients = {name: Client(network) for name in self.stores}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._began = clock()

    # The run

    def begin(self, models: Sequence[Sequence[tuple[str, int]]], have: Set[str]) -> None:
        """Say what this host needs, by model (digest, size), and has; start to look at the others. Raises OSError."""
        for files in models:
            self._ranks.update(ranks(files))
        self._word = replace(self._word, needs=frozenset(self._ranks) - have, have=frozenset(have))
        self._began = self._clock()
        self._write()
        interval = max(self._patience.look, len(self.stores) / HOSTS_A_SECOND)
        for name in self.stores:
            self._start(functools.partial(self._look, name), interval)
        self._start(self._tell, self._patience.look)

    def close(self) -> None:
        """Say that this run is over; what it has stays to be had."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients.values():
            client.close()
        with self._lock:
            self._word = replace(self._word, working=False, doing=frozenset())
        self._write()

    def has(self, digests: Set[str]) -> None:
        """Note files that were proved here without being fetched."""
        with self._lock:
            self._word = replace(self._word, have=self._word.have | digests)
        self._write()

    def received(self, count: int) -> None:
        """Note bytes that came."""
        with self._lock:
            self._word = replace(self._word, moved=self._word.moved + count)

    def ended(self, job: Job) -> None:
        """A file is proved and in the store, or cannot be had here."""
        digest = frozenset({job.item.sha256})
        if set(job.pieces.giver.values()) & self.name_of.keys():
            self.bytes += job.received
        with self._lock:
            word = replace(self._word, doing=self._word.doing - digest)
            if job.problems:
                self._word = replace(word, failed=word.failed | digest)
            else:
                self._word = replace(word, have=word.have | digest)
            for source in sorted(job.struck & self.name_of.keys()):
                self._distrusted.add(self.name_of[source])
        self.warnings += [
            f"{job.item.label} did not come right from a peer and was asked for elsewhere: {text}"
            for text in job.overcome
            if any(source in text for source in self.name_of)
        ]
        self._write()

    def may_begin(self, job: Job, afar: bool, near: bool) -> bool:
        """Tell whether a file may begin, and set from where it is to come: peers that have it first."""
        sha256 = job.item.sha256
        with self._lock:
            now = self._clock()
            words = {
                name: seen.word for name, seen in self._seen.items() if seen.answers and name not in self._distrusted
            }
            # Until all hosts of the play have begun, whoever goes on alone would bring what is another's.
            early = now - self._began < self._patience.begin and any(not seen.word.beat for seen in self._seen.values())
            if early and not any(sha256 in word.have for word in words.values()):
                return False
            way, names = self._choose(sha256, words, now)
            if way == WAIT or not (near if way == PEERS else afar):
                return False
            if way == PEERS:
                job.sources = [*(self.stores[name] for name in names), *job.sources]
                job.from_peers = True
            if way == ORIGIN:
                self._word = replace(self._word, doing=self._word.doing | {sha256})
        if way == ORIGIN:
            self._write()
        return True

    def _choose(self, sha256: str, words: Mapping[str, Word], now: float) -> tuple[str, Sequence[str]]:
        lively = {name for name, word in words.items() if word.working and self._gets_on(name, word, now)}
        while True:
            way, names = choose(sha256, self._ranks.get(sha256, 0), self.me, words, lively)
            late = [name for name in names if self._is_late(sha256, name, words[name], now)] if way == WAIT else []
            if not late:
                return way, names
            lively -= {*late}

    def _gets_on(self, name: str, word: Word, now: float) -> bool:
        seen = self._seen[name]
        stands = word.doing and now - seen.moved_at >= self._patience.still
        return not stands and now - seen.beat_at < self._patience.silent

    def _is_late(self, sha256: str, name: str, word: Word, now: float) -> bool:
        """Tell whether it is a host's turn and it does nothing: it waits for one that only this host cannot reach."""
        if word.doing:
            self._idle_since.pop((sha256, name), None)
            return False
        return now - self._idle_since.setdefault((sha256, name), now) >= self._patience.still

    # The threads

    def _start(self, work: Callable[[], object], interval: float) -> None:
        def again() -> None:
            while True:
                work()
                if self._ended.wait(interval):
                    return

        thread = threading.Thread(target=again, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _tell(self) -> None:
        with self._lock:
            self._word = replace(self._word, beat=self._word.beat + 1)
        self._write()

    def _write(self) -> None:
        with self._lock:
            write_json(self._word_file, self._word.document(), mode=0o644, compact=True)

    def _look(self, name: str) -> None:
        word = self._asked(name)
        with self._lock:
            seen, now = self._seen[name], self._clock()
            seen.answers = word is not None
            if word is None:
                return
            if word.beat != seen.word.beat:
                seen.beat_at = now
            if (word.moved, word.have) != (seen.word.moved, seen.word.have) or not seen.moved_at:
                seen.moved_at = now
            seen.word = word

    def _asked(self, name: str) -> Word | None:
        """Ask a host what it has; None when it does not answer."""
        client = self._clients[name]
        try:
            response, _ = client.get(f"{self.stores[name].base}/{WORD_FILE}", {})
            text = response.read(MOST_BYTES)
            if response.status == 404:  # it serves, but its run has not begun
                return Word()
            return parse_word(json.loads(text)) if response.status == 200 else None
        except (Retry, Unusable, OSError, ValueError, http.client.HTTPException):
            client.close()
            return None


def make_fanout(options: Mapping[str, Any], timeout: float, patience: Patience = Patience()) -> Fanout | None:
    """Turn the module's option into the exchange; None when there is nobody to exchange with. Raises Refusal."""
    addresses = options.get("peers") or {}
    peers = {
        name: f"https://[{address}]:{options['port']}" if ":" in address else f"https://{address}:{options['port']}"
        for name, address in addresses.items()
    }
    if not peers.keys() - {options.get("name")}:
        return None
    folder = Path(options["folder"])
    for name in ("peers.pem", "own.pem"):
        if not (folder / name).is_file():
            raise Refusal(f"{folder / name} is not there; weights_fanout makes it (state: serving)")
    network = Network(
        ca_file=str(folder / "peers.pem"),
        certificate=str(folder / "own.pem"),
        timeout=timeout,
        no_proxy="*",
        own_address=addresses.get(options["name"], ""),  # the others let in only this one
    )
    return Fanout(options["name"], peers, network, folder / "www" / WORD_FILE, patience)
