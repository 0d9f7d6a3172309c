"""Programs of the machine: finding them, installing them, running them, and keeping two runs apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from lab import paths
from lab.errors import LabError
from lab.report import Report

MACHINE_LOCKS = Path("/run/lock/redoubt-lab")


def run(
    command: Sequence[str],
    *,
    what: str,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run a command and return what it printed; ``on_line`` is told each line as it appears.

    Raises LabError with the end of its output when it fails, is missing, or takes longer than ``timeout`` seconds, and
    when ``stop`` is set. The command and its children are ended then, and also on Ctrl-C.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, env=None if env is None else {**os.environ, **env},
            )  # fmt: skip
        except FileNotFoundError as error:
            raise LabError(f"{what}: {command[0]} is not installed") from error
        deadline = time.monotonic() + timeout
        told = 0
        try:
            while (code := _wait(process, 0.2)) is None:
                if stop is not None and stop.is_set():
                    raise LabError(f"{what}: stopped")
                if time.monotonic() > deadline:
                    raise LabError(
                        f"{what}: still not done after {timeout:.0f} s, stopped ({' '.join(command[:4])} ...)"
                    )
                if on_line is not None:
                    told = _tell(output, told, on_line)
        finally:
            _end(process)
        output.seek(0)
        text = output.read()
    if code != 0:
        tail = "\n".join(text.strip().splitlines()[-15:])
        raise LabError(f"{what}: {command[0]} ended with {code}:\n{tail}")
    return text


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _tell(output: TextIO, told: int, on_line: Callable[[str], None]) -> int:
    size = os.fstat(output.fileno()).st_size
    text = os.pread(output.fileno(), size - told, told)
    whole = text.rfind(b"\n") + 1
    for line in text[:whole].decode(errors="replace").splitlines():
        on_line(line)
    return told + whole


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, with its children: politely, then not."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        _wait(process, seconds)


def require(packages: Mapping[str, str], report: Report) -> None:
    """See that programs are there, installing their Debian packages where we may.

    ``packages`` maps a program (or an absolute path) to the packages that bring it, in words. Raises LabError where one
    is missing and this user may not install it.
    """
    # Under the lock from the start: while another process installs, a program may be there before what it needs.
    with file_lock("apt"):
        missing = _missing(packages)
        if not missing:
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            names = " ".join(missing)
            raise LabError(f"the lab needs the Debian package(s) {names}: run `sudo apt-get install {names}`")
        with report.phase(f"Install {' '.join(missing)} on this machine"):
            apt = {"DEBIAN_FRONTEND": "noninteractive"}
            wait = ["-o", "DPkg::Lock::Timeout=300"]
            run(["apt-get", *wait, "update", "-q"], what="package lists", timeout=300, env=apt)
            install = ["apt-get", *wait, "install", "-qy", "--no-install-recommends", *missing]
            run(install, what="package installation", timeout=600, env=apt)


def _missing(packages: Mapping[str, str]) -> list[str]:
    return sorted({name for program, names in packages.items() if find(program) is None for name in names.split()})


def find(program: str) -> str | None:
    """The path of a program, also where the sbin folders are not on this user's PATH; None where it is not there."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(program, path=search)


@contextmanager
def file_lock(name: str, timeout: float = 1800, *, machine: bool = False) -> Iterator[None]:
    """Keep other lab processes and threads out while the block runs: of this checkout, or of the whole ``machine``.

    Raises LabError where the lock is not free within ``timeout`` seconds.
    """
    folder = MACHINE_LOCKS if machine else paths.STATE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with (folder / f"{name}.lock").open("a+") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    text = f"another lab process holds {handle.name} for more than {timeout:.0f} s: wait or end it"
                    raise LabError(text) from None
                time.sleep(0.2)
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit inside the block, so that clean-up code runs.

    Does nothing outside the main thread, where Python allows no signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
