"""The folders under .runs/: one for each run, private to the user, the last ones kept."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path(os.environ.get("REDOUBT_RUNS") or ROOT / ".runs")
KEEP = 20
NAME = re.compile(r"^\d{8}-\d{6}-")


@contextmanager
def run_folder(name: str, runs: Path = RUNS, keep: int = KEEP) -> Iterator[Path]:
    """A new folder `<time>-<name>` (mode 0700), locked while in use; `latest` points to it; old ones go."""
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = _new(runs, re.sub(r"[^A-Za-z0-9._-]+", "-", name))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _point(runs / "latest", folder)
        prune(runs, keep)
        yield folder


def prune(runs: Path, keep: int) -> list[Path]:
    """Removes all but the newest `keep` run folders; those in use stay. Returns what went."""
    folders = sorted(path for path in runs.iterdir() if NAME.match(path.name) and path.is_dir())
    gone = [path for path in folders[: max(0, len(folders) - keep)] if not _in_use(path)]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return gone


def shown(path: Path) -> str:
    """A path as a person should read it: relative to the repository where it lies in it."""
    with suppress(ValueError):
        return str(path.relative_to(ROOT))
    return str(path)


def _new(runs: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        folder = runs / (f"{stamp}-{name}" if number == 1 else f"{stamp}-{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(f"{runs}: a thousand runs in one second")


def _point(link: Path, folder: Path) -> None:
    """Two runs may start at once: whoever is later wins."""
    new = link.with_name(f".latest-{folder.name}")
    with suppress(OSError):
        new.symlink_to(folder.name)
        new.replace(link)


def _in_use(folder: Path) -> bool:
    try:
        with (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
