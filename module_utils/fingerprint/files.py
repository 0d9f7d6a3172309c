# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The files that Redoubt wrote on this host: those that its records name, and all in folders that are its own.

Records are a config set's last proved files (module config_set) and a release's manifest (module release).
Standard library only, Python 3.9+.
"""

from __future__ import annotations

import glob
import grp
import json
import os
import pwd
import stat
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from ansible.module_utils.config_files import Snapshot, load_snapshots, snapshot
from ansible.module_utils.release_store import Store, file_mode

from .document import Gathered, Row
from .normal import DESCRIPTIONS, SECRET, SECRET_CHANGED, SOURCES, Normal, is_secret, matches, sha256

STATE = "/var/lib/redoubt/config_sets"
ROOT = "/opt/redoubt"
# Whole folders, and what bears the project's name among the files of others.
TREES = ("/etc/redoubt", "/usr/local/lib/redoubt")
GLOBS = (
    "/etc/*.d/*redoubt*",
    "/etc/security/limits.d/*redoubt*",
    "/etc/apt/*.d/*",
    "/etc/apt/keyrings/*",
    "/etc/systemd/system/*redoubt*",
    "/etc/systemd/system/*.d/*redoubt*",
    "/etc/yum.repos.d/*.repo",
)
# What programs keep there for themselves, with names that nobody chose.
OPAQUE = ("gnupg",)
LARGEST = 64 << 20  # bytes; no configuration is as large


class Files:
    """What stands at paths of this host, and what was recorded of them."""

    def __init__(self, normal: Normal, gathered: Gathered, state: str = STATE, root: str = ROOT) -> None:
        self.normal = normal
        self.gathered = gathered
        self.state = Path(state)
        self.root = root
        self.seen: Set[str] = set()

    def gather(self, trees: Tuple[str, ...] = TREES, globs: Tuple[str, ...] = GLOBS) -> None:
        """Fill `sets`, `files` and `local`. Raises OSError for a file that cannot be read."""
        for good in sorted(self.state.glob("*.good.json")) if self.state.is_dir() else []:
            self._config_set(good)
        self._release()
        for path in self._unrecorded(trees, globs):
            self._found(path, None, False)

    def _config_set(self, good: Path) -> None:
        name = good.name[: -len(".good.json")]
        proved = (self.state / f"{name}.json").is_file()
        try:
            rows = load_snapshots(good.read_text())
        except ValueError:
            self._set(name, "its record is damaged", False)
            return
        # A set that says only where things come from is there on hosts with that source alone.
        self._set(name, "yes" if proved else "no", all(matches(item.path, SOURCES) for item in rows))
        secrets = secret_paths(self.state / f"{name}.proof.json")
        for item in rows:
            if item.kind == "none":
                continue
            self._found(item.path, item, item.path in secrets or (item.kind == "file" and is_secret(item.mode)))

    def _set(self, name: str, proved: str, source: bool) -> None:
        found, recorded = {"proved": proved}, {"proved": "yes"}
        if source:
            self.gathered.local["sources"][f"set {name}"] = {**found}
            self.gathered.recorded_local["sources"][f"set {name}"] = {**recorded}
        else:
            self.gathered.sections["sets"][name] = {**found}
            self.gathered.recorded["sets"][name] = {**recorded}

    def _release(self) -> None:
        """The release in service, by paths that do not say its number."""
        store = Store(self.root, "")
        number = store.current()
        if not number:
            return
        folder, shown = store.path(number), f"{self.root}/current"
        self.gathered.local["system"]["release"] = {"number": str(number)}
        stated: Dict[str, str] = store.manifest(number).get("files", {})
        bad = set(store.damaged(number))
        for path, digest in stated.items():
            place, name = folder / path, f"{shown}/{path}"
            now = snapshot(str(place))
            secret = is_secret(file_mode(path))
            if now.kind != "none":
                self._put(name, now, secret, changed=secret and path in bad)
            # A digest of a secret could be guessed from, so the manifest's stays where it is.
            row = {"kind": "file", "mode": f"{file_mode(path):04o}"}
            self._record(name, row, SECRET if secret else None, None if secret else digest)
        for place in sorted(folder.rglob("*")):
            name = f"{shown}/{place.relative_to(folder)}"
            if place.is_file() and str(place.relative_to(folder)) not in stated:
                self._put(name, snapshot(str(place)), is_secret(place.lstat().st_mode))

    def _unrecorded(self, trees: Tuple[str, ...], globs: Tuple[str, ...]) -> Iterator[str]:
        """Yield files and links that are in our places without a record."""
        found: Set[str] = set()
        for tree in trees:
            for folder, folders, names in os.walk(tree):
                folders[:] = sorted(name for name in folders if name not in OPAQUE)
                paths = [os.path.join(folder, name) for name in [*names, *folders]]
                found |= {path for path in paths if os.path.islink(path) or os.path.isfile(path)}
        for pattern in globs:
            found |= {path for path in glob.glob(pattern) if os.path.islink(path) or os.path.isfile(path)}
        yield from sorted(found - self.seen)

    def _found(self, path: str, recorded: Optional[Snapshot], secret: bool) -> None:
        self.seen.add(path)
        try:
            now = snapshot(path)
        except IsADirectoryError:
            now = Snapshot(path, "folder")
        secret = secret or (now.kind == "file" and is_secret(now.mode))
        if now.kind != "none":
            self._put(path, now, secret, changed=recorded is not None and secret and now.data != recorded.data)
        if recorded is not None:
            row = {"kind": recorded.kind, **_owners(recorded)}
            if recorded.kind == "link":
                self._record(path, {"kind": "link", "target": self.normal.text(recorded.target)}, None, None)
            elif secret:
                self._record(path, row, SECRET, None)
            else:
                self._record(path, row, self.normal.content(path, recorded.data), sha256(recorded.data))

    def _put(self, path: str, now: Snapshot, secret: bool, changed: bool = False) -> None:
        """Put what stands at a path where it belongs: the same on all hosts, or this one's own."""
        row: Row = {"kind": now.kind}
        if now.kind == "link":
            row["target"] = self.normal.text(now.target)
        if now.kind == "file":
            row.update(_owners(now))
            row["content"] = (SECRET_CHANGED if changed else SECRET) if secret else self.normal.content(path, now.data)
        raw = {"bytes": sha256(now.data)} if now.kind == "file" and not secret else {}
        if matches(path, SOURCES):
            self.gathered.local["sources"][path] = {**row, **raw}
        elif matches(path, DESCRIPTIONS):
            self.gathered.local["files"][path] = {**row, **raw}
        else:
            self.gathered.sections["files"][path] = row
            if raw:
                self.gathered.local["files"][path] = raw

    def _record(self, path: str, row: Row, content: Optional[str], raw: Optional[str]) -> None:
        """Note what a record says of a path; `content` None is not known."""
        stated = {**row, **({"content": content} if content else {})}
        own = {"bytes": raw} if raw else {}
        if matches(path, SOURCES):
            self.gathered.recorded_local["sources"][path] = {**stated, **own}
            return
        self.gathered.recorded["files"][path] = stated
        if own:
            self.gathered.recorded_local["files"][path] = own


def secret_paths(proof: Path) -> List[str]:
    """The secret files of a config set, which its record names (sets of earlier versions name none)."""
    return _strings(proof, "secret_files")


def recorded_units(state: Path) -> List[str]:
    """The units that config sets enable at boot."""
    return sorted({unit for proof in state.glob("*.proof.json") for unit in _strings(proof, "units")})


def probed_units(state: Path) -> List[str]:
    """The units that config sets prove to run."""
    units = set()
    for proof in state.glob("*.proof.json"):
        probes = _json(proof).get("probe")
        units |= {probe["unit"] for probe in probes or [] if isinstance(probe, dict) and probe.get("unit")}
    return sorted(units)


def _strings(path: Path, key: str) -> List[str]:
    found = _json(path).get(key)
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _json(path: Path) -> Dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _owners(item: Snapshot) -> Row:
    return {"mode": f"{stat.S_IMODE(item.mode):04o}", "owner": _user(item.uid), "group": _group(item.gid)}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
