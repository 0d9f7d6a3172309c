"""A small or read-only file system, and a process with little memory: made for a test, gone after it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes. Skips where none may be made."""
    folder.mkdir()
    with _mounted(folder, ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"]):
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below a folder can be written, not even by root. Skips where that cannot be had."""
    with _mounted(folder, ["mount", "--bind", str(folder)]):
        _mount(["mount", "-o", "remount,bind,ro", str(folder)])
        yield


@contextmanager
def _mounted(folder: Path, command: Sequence[str]) -> Iterator[None]:
    _mount([*command, str(folder)])
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip()}); root on a whole machine can")


def run_with_memory(command: Sequence[str], limit: int, name: str, cwd: Path) -> tuple[str, int]:
    """Run a command whose memory, page cache included, is held below a limit; returns its output and its peak.

    Skips where no control group may be made.
    """
    version1 = CGROUPS / "memory"
    group = (version1 if version1.is_dir() else CGROUPS) / name
    limits = "memory.limit_in_bytes" if version1.is_dir() else "memory.max"
    peak = "memory.max_usage_in_bytes" if version1.is_dir() else "memory.peak"
    try:
        group.mkdir()
        (group / limits).write_text(str(limit))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group for memory can be made here ({error}); root on a whole machine can")
    try:
        join = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        done = subprocess.run(
            ["sh", "-c", join, "sh", *command], cwd=cwd, capture_output=True, text=True, check=False, timeout=1500
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, int((group / peak).read_text())
    finally:
        os.rmdir(group)
