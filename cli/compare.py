"""`compare`: what differs between two fingerprints, or between one and its host's records or a lock. No connection."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cli.playbooks import nearest
from cli.runs import RUNS, shown
from locks.folder import load
from module_utils.fingerprint.against_lock import NotLocked, lock_differences
from module_utils.fingerprint.compare import Difference, as_rows, differences, drift, report
from module_utils.fingerprint.document import Unreadable, parse

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip
from ansible.module_utils.lock.document import checked  # isort: skip

FOLDER = "fingerprints"
SAME, DIFFERENT, UNREADABLE = 0, 1, 2


def compare(options: argparse.Namespace, console: Console, runs: Path = RUNS) -> int:
    """The verb: 0 when nothing differs, 1 when something does, 2 when something cannot be read."""
    try:
        rows, left, right = find(options.left, options.right, options.lock, runs)
    except (Unreadable, NotLocked) as error:
        console.print(f"redoubt compare: {error}", style="red", markup=False, highlight=False)
        return UNREADABLE
    if options.json:
        print(json.dumps({"left": left, "right": right, "differences": as_rows(rows)}, indent=2))
    else:
        lines = report(rows, left, right) or [f"nothing differs ({left}, {right})"]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return DIFFERENT if rows else SAME


def find(left: str, right: str | None, lock: Path | None, runs: Path) -> tuple[list[Difference], str, str]:
    """The differences, and the words for both sides. Raises Unreadable, NotLocked."""
    one = read(left, runs)
    if lock is not None and right is not None:
        raise Unreadable("give a second host or --lock, not both")
    if lock is not None:
        return lock_differences(one, read_lock(lock)), "locked", f"on {one['host']}"
    if right is None:
        return drift(one), "recorded", f"on {one['host']}"
    two = read(right, runs)
    if one["host"] == two["host"]:
        return differences(one, two), f"at {one['taken']}", f"at {two['taken']}"
    return differences(one, two), f"on {one['host']}", f"on {two['host']}"


def read(what: str, runs: Path) -> dict[str, Any]:
    """The fingerprint in a file, or the one that `verify` left of a host. Raises Unreadable."""
    path = Path(what)
    if not path.is_file():
        path = runs / FOLDER / f"{what}.json"
    if "/" in what and not Path(what).is_file():
        raise Unreadable(f"there is no file {what}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unreadable(_unknown(what, runs)) from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{shown(path)} cannot be read: {error}") from error
    return parse(document, shown(path))


def _unknown(host: str, runs: Path) -> str:
    known = sorted(path.stem for path in (runs / FOLDER).glob("*.json"))
    near = nearest(host, known)
    hint = f"did you mean {near}?" if near else f"there are: {', '.join(known) or 'none yet'}"
    return f"there is no fingerprint of a host {host!r} in {shown(runs / FOLDER)}; {hint} (./redoubt play verify)"


def read_lock(place: Path) -> Mapping[str, Any]:
    """A lock as one mapping: a folder of YAML files as in git, or one JSON file as in a depot. Raises Unreadable."""
    try:
        if place.is_dir():
            return load(place)
        lock: Mapping[str, Any] = checked(json.loads(place.read_text(encoding="utf-8")), str(place))
        return lock
    except Refusal as error:
        raise Unreadable(str(error)) from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"the lock {place} cannot be read: {error}") from error
