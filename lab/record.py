"""What the lab remembers about each host."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import paths
from lab.tools import write_private

#: The users in the host images, with the numbers that the recipe gives them.
USERS = {"root": 0, "operator": 1000, "guest": 1001}


@dataclass(frozen=True)
class Host:
    """One host and how to reach it."""

    name: str
    platform: str
    address: str
    port: int
    user: str
    key_file: Path
    known_hosts_file: Path
    container_id: str
    running: bool

    def as_dict(self) -> dict[str, Any]:
        """The host as plain data."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def folder(name: str) -> Path:
    """Where a host's keys and record are."""
    return paths.STATE / "hosts" / name


def load(name: str) -> Host | None:
    """The host as it was when it was finished; None where none of this name was."""
    try:
        plain = json.loads((folder(name) / "record.json").read_text(encoding="utf-8"))
        plain["key_file"] = Path(plain["key_file"])
        plain["known_hosts_file"] = Path(plain["known_hosts_file"])
        return Host(**{**plain, "running": False})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(host: Host) -> None:
    """Remember a finished host."""
    write_private(folder(host.name) / "record.json", json.dumps(host.as_dict()) + "\n")
