# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Which lock is in force for each site of a depot, which one was before, and which ones are on their way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.blobs import sync_folder
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.progress import write_json

from .layout import is_site


@dataclass(frozen=True)
class Records:
    """The documents of a depot, each written so that a reader sees the old or the new one."""

    root: Path

    def in_force(self, site: str) -> dict[str, Any] | None:
        """Return the lock in force for a site, or None. Raises Refusal, OSError."""
        return read_document(self._file("locks", site))

    def previous(self, site: str) -> dict[str, Any] | None:
        """Return the lock that was in force before, or None. Raises Refusal, OSError."""
        return read_document(self._file("state/previous", site))

    def coming(self) -> dict[str, dict[str, Any]]:
        """Return the locks whose parts are being brought, by site. Raises Refusal, OSError."""
        found = {path.stem: read_document(path) for path in sorted((self.root / "state" / "coming").glob("*.json"))}
        return {site: lock for site, lock in found.items() if lock is not None}

    def sites(self) -> list[str]:
        """Return the sites with a lock in force, sorted."""
        return sorted(path.stem for path in (self.root / "locks").glob("*.json"))

    def highest_serial(self, site: str) -> int:
        """Return the highest serial that was ever published for a site, 0 for none. Raises Refusal, OSError."""
        return int((read_document(self._serials) or {}).get(site, 0))

    def remember_serial(self, site: str, serial: int) -> None:
        """Note a serial, if it is higher than those before. Raises Refusal, OSError."""
        known = read_document(self._serials) or {}
        if serial > int(known.get(site, 0)):
            write_json(self._serials, {**known, site: serial})

    def begin(self, lock: Mapping[str, Any]) -> None:
        """Note that the parts of a lock are on their way. Raises OSError."""
        write_json(self._file("state/coming", lock["site"]), lock, compact=True)

    def commit(self, lock: Mapping[str, Any]) -> None:
        """Put a lock in force; the one before is kept beside. Raises Refusal, OSError."""
        site = lock["site"]
        now = self.in_force(site)
        if now is not None and now != lock:
            write_json(self._file("state/previous", site), now, compact=True)
        write_json(self._file("locks", site), lock, mode=0o644)
        sync_folder(self.root / "locks")
        self._file("state/coming", site).unlink(missing_ok=True)

    def forget(self, site: str) -> bool:
        """Take a site's documents away, but for its highest serial; tell whether one was there. Raises OSError."""
        files = [self._file(folder, site) for folder in ("locks", "state/coming", "state/previous")]
        found = [file for file in files if file.exists()]
        for file in found:
            file.unlink()
        return bool(found)

    @property
    def _serials(self) -> Path:
        return self.root / "state" / "serials.json"

    def _file(self, folder: str, site: str) -> Path:
        if not is_site(site):
            raise Refusal(f"{site!r} is not the name of a site")
        return self.root / folder / f"{site}.json"


def read_document(path: Path) -> dict[str, Any] | None:
    """Return a JSON mapping, or None where there is no file. Raises Refusal, OSError."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refusal(f"{path} is not JSON ({error}); move it away, then publish the site's lock again") from error
    if not isinstance(document, dict):
        raise Refusal(f"{path} is not a mapping; move it away, then publish the site's lock again")
    return document
