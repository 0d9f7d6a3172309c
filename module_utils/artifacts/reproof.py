"""Reading every file of a host's store again, the one whose proof is the oldest first.

Runs on the host from plain copies of this code, by a timer:
`python3 -m ansible.module_utils.artifacts.reproof --directory /srv/redoubt/models`; standard library only.

Files are read without the store's lock, for bytes under a name never change: mending puts another inode there. The lock
is held for the moment in which a result is written down. A run of the module therefore waits for nothing, and while
one works, this program waits with its next file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from ansible.module_utils.fetch.pace import Bandwidth
from ansible.module_utils.run_lock import Busy

from .holdings import Held, holdings
from .inventory import refresh
from .ledger import Ledger
from .reading import Reading, hash_from_disk
from .store import Store
from .survey import damage

PATIENCE = 86400.0  # seconds to wait for a run of the module, which may bring terabytes
SHORT_PATIENCE = 10.0


@dataclass
class Report:
    """What a re-proof has done so far; `ended` is None while it goes on."""

    started: int
    ended: int | None = None
    files: int = 0
    bytes: int = 0
    damaged: int = 0


def note(
    store: Store,
    readings: Iterable[Reading],
    releases: Path | None,
    metrics: Path | None = None,
    report: Report | None = None,
) -> None:
    """Write down what was read. A file that was touched meanwhile is left as it was. Raises Busy, OSError."""
    with store.locked():
        ledger = Ledger.read(store.ledger_file)
        for reading in readings:
            try:
                now = os.lstat(reading.path)
            except FileNotFoundError:
                continue
            before = reading.before
            if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
                continue
            if not reading.good:
                ledger.note_damage(now, reading.sha256)
            elif now.st_ctime_ns == before.st_ctime_ns or ledger.digest(now) == reading.sha256:
                # In the second case a run of the module has made links meanwhile, and kept the file proved.
                ledger.note(now, reading.sha256)
        ledger.write()
        refresh(store, ledger, releases, metrics, vars(report) if report else None)


def note_what_was_read(store: Store, readings: Sequence[Reading], releases: Path | None = None) -> None:
    """Write down what somebody else's look at the store has read; if that cannot be, it was only a look."""
    if readings:
        with contextlib.suppress(Busy, OSError):
            patient = replace(store, patience=max(store.patience, SHORT_PATIENCE))
            note(patient, readings, releases)


def reprove(
    store: Store,
    releases: Path | None,
    metrics: Path | None,
    say: Callable[[str], None],
    tick: Callable[[int], None] = lambda _: None,
) -> Report:
    """Read every file whose SHA-256 is known, and write down each result at once. Raises Busy, OSError."""
    report = Report(int(time.time()))
    ledger = Ledger.read(store.ledger_file)
    known = [item for item in holdings(store, ledger) if item.sha256]
    for item in sorted(known, key=lambda item: (_proved(ledger, item), str(item.shown))):
        reading, said = _read(item, tick)
        if reading is None:
            continue
        report.files += 1
        report.bytes += reading.before.st_size
        if not reading.good:
            report.damaged += 1
            where = damage(reading.path, item.sha256, reading.before.st_size, store.blobs.pieces_of)
            names = ", ".join(map(str, item.places[1:] or item.places))
            say(f"{names}: expected sha256 {item.sha256}, {said}{where}; the weights playbook fetches what is damaged")
        note(store, [reading], releases, metrics, report)
    report.ended = int(time.time())
    note(store, [], releases, metrics, report)
    return report


def _proved(ledger: Ledger, item: Held) -> float:
    proof = ledger.proof(item.status)
    return proof.since if proof is not None else 0.0


def _read(item: Held, tick: Callable[[int], None]) -> tuple[Reading | None, str]:
    """Read one file; None where a run of the module has taken it away meanwhile."""
    path = item.places[0]
    try:
        before = os.lstat(path)
        digest, size = hash_from_disk(path, tick)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return Reading(path, before, item.sha256, good=False), f"found a read error ({error.strerror or error})"
    good = (digest, size) == (item.sha256, before.st_size)
    return Reading(path, before, item.sha256, good), f"found {digest}"


def main(arguments: Optional[list[str]] = None) -> int:
    """Entry point; 1 when something is damaged."""
    parser = argparse.ArgumentParser(prog="reproof")
    parser.add_argument("--directory", type=Path, required=True, help="where models are published")
    parser.add_argument(
        "--state-dir", type=Path, default=Path("/var/lib/redoubt/weights"), help="where proofs are kept"
    )
    parser.add_argument("--releases", type=Path, default=Path("/opt/redoubt"), help="where releases are")
    parser.add_argument("--metrics", type=Path, help="*.prom file in node exporter's folder")
    parser.add_argument("--bandwidth", type=int, default=0, help="bytes per second; 0 for no cap")
    parser.add_argument("--figures", action="store_true", help="only write inventory and metrics, read no file")
    options = parser.parse_args(arguments)
    store = Store(options.directory, options.state_dir, PATIENCE)
    if not store.state.is_dir():
        print(f"{store.state} does not exist; the weights playbook makes it")
        return 0
    if options.figures:
        note(store, [], options.releases, options.metrics)
        return 0
    pace = Bandwidth(options.bandwidth).take
    try:
        # `<3>` makes it an error in the journal.
        report = reprove(store, options.releases, options.metrics, lambda text: print(f"<3>{text}", flush=True), pace)
    except Busy as busy:
        print(f"<3>{busy}")
        return 1
    print(f"{report.files} files, {report.bytes} bytes read again, {report.damaged} damaged")
    return 1 if report.damaged else 0


if __name__ == "__main__":
    sys.exit(main())
