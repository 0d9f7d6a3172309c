"""What the lock means for one host: its mode, its platform, and what preflight refuses. The plan takes it from here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from locks import folder as files
from module_utils.closure.platforms import name_of
from planner.problems import Problem, shown
from planner.site_document import KnownHost

from ansible.module_utils.artifacts.errors import Refusal  # isort: skip
from ansible.module_utils.lock.document import is_site  # isort: skip

FOLDER, MODE, SITE, PLATFORMS = "redoubt_lock", "redoubt_lock_mode", "redoubt_site", "redoubt_platforms"
VARIABLES = (FOLDER, MODE, SITE, PLATFORMS)
MODES = ("strict", "open")
OPEN = f"{MODE}: open installs what the package sources offer"


class Locks:
    """The locks that the hosts of a run name, each folder read once; `ignored` while the lock itself is being made."""

    def __init__(self, project: Path, *, ignored: bool = False) -> None:
        self._project, self._ignored = project, ignored
        self._read: dict[Path, dict[str, Any] | list[str]] = {}

    def row(
        self, host: KnownHost, facts: Mapping[str, Any] | None, *, plan_only: bool
    ) -> tuple[dict[str, Any] | None, list[Problem], list[str]]:
        """Return the planner's `lock`, problems, and warnings for a host.

        Without its facts (None) the platform is not judged. In a plan-only run nothing is installed, so that a lock
        which is not there yet is a warning.
        """
        values = host.values
        if self._ignored or set(VARIABLES) & host.unknown:
            return None, [], []
        mode = values.get(MODE, "strict")
        if mode not in MODES:
            return None, [Problem(MODE, "there is no such mode", "write strict or open", shown(mode))], []
        folder = self._folder(values)
        written = values.get(FOLDER) is not None
        if not written and mode == "open" and not (folder / files.HEAD).is_file():
            return None, [], []
        lock = self._load(folder)
        if isinstance(lock, list):
            if plan_only and not (folder / files.HEAD).is_file():
                return None, [], [f"{FOLDER}: there is no lock in {folder}, so nothing can be installed; {files.MAKE}"]
            fix = "" if mode == "open" else f", or {OPEN}"
            return None, [Problem(FOLDER, why, f"make it anew: ./redoubt play lock{fix}") for why in lock], []
        found = list(_site_problems(values, lock, folder))
        platform = "" if facts is None else name_of(facts)
        row = lock["platforms"].get(platform)
        if facts is not None and row is None and mode == "strict":
            found.append(self._no_platform(facts, platform, lock, folder, values))
        document = {
            "mode": mode,
            "folder": str(folder),
            "site": lock["site"],
            "serial": lock["serial"],
            "digest": lock["digest"],
            "platform": platform,
            "packages": row,
            "images": lock["images"],
            "models": lock["models"],
        }
        return document, found, []

    def _folder(self, values: Mapping[str, Any]) -> Path:
        written = values.get(FOLDER)
        return self._project / str(written) if written else self._project / "lock"

    def _load(self, folder: Path) -> dict[str, Any] | list[str]:
        if folder not in self._read:
            try:
                self._read[folder] = files.load(folder)
            except Refusal as refusal:
                self._read[folder] = list(refusal.problems)
        return self._read[folder]

    @staticmethod
    def _no_platform(
        facts: Mapping[str, Any], platform: str, lock: Mapping[str, Any], folder: Path, values: Mapping[str, Any]
    ) -> Problem:
        known = ", ".join(sorted(lock["platforms"])) or "no platform"
        if not platform:
            system = f"{facts.get('distribution')} {facts.get('distribution_version')} on {facts.get('architecture')}"
            why = f"the host is {system}, which no lock can have; {folder} has {known}"
            return Problem(PLATFORMS, why, f"use a platform of the support matrix, or {OPEN}")
        wanted = sorted({*lock["platforms"], platform})
        listed = "[" + ", ".join(f'"{name}"' for name in wanted) + "]"
        why = f"the host is {platform}, and the lock in {folder} has {known}, so no package may be installed"
        fix = f"./redoubt play lock -e '{{\"{PLATFORMS}\": {listed}}}', then gather or import; or {OPEN}"
        return Problem(PLATFORMS, why, fix)


def _site_problems(values: Mapping[str, Any], lock: Mapping[str, Any], folder: Path) -> list[Problem]:
    site = values.get(SITE)
    if site is None or site == lock["site"]:
        return []
    if not is_site(site):
        form = "up to 64 lower-case letters and digits, and single -, _ or . between them"
        return [Problem(SITE, "it is no site's name", f"write {form}", shown(site))]
    why = f"the lock in {folder} is that of the site {lock['site']}"
    return [Problem(SITE, why, f"name the folder of this site's lock in {FOLDER}, or make it", shown(site))]
