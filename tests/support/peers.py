"""The tools that others fetch weights with, run as a person would run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support import programs

#: How `hf` is made to speak to our mirror alone.
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "NO_COLOR": "1",
}


class HubClient:
    """The hub's own client, with a cache of its own and one mirror for a hub."""

    def __init__(self, base: str, home: Path) -> None:
        self.home = home
        self._environment = {**os.environ, **QUIET, "HF_ENDPOINT": base, "HF_HOME": str(home)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `hf` to its end."""
        return subprocess.run(
            _hf(*arguments), env=self._environment, capture_output=True, text=True, check=False, timeout=600
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `hf`."""
        quiet = subprocess.DEVNULL
        command = _hf(*arguments)
        return subprocess.Popen(command, env=self._environment, stdout=quiet, stderr=quiet)

    def download(self, repo: str, commit: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Have a whole commit in a folder."""
        return self.run("download", repo, "--revision", commit, "--local-dir", str(folder))

    def verify(self, repo: str, commit: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Compare a folder with what the hub says of every file of a commit."""
        strict = ("--fail-on-missing-files", "--fail-on-extra-files")
        return self.run("cache", "verify", repo, "--revision", commit, "--local-dir", str(folder), *strict)


def _hf(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "huggingface_hub.cli.hf", *arguments]


def curl(url: str, target: Path, *options: str) -> list[str]:
    """The command that fetches one file with curl."""
    return [programs.client("curl", "curl"), "-sS", "-f", *options, "-o", str(target), url]


def aria2(url: str, target: Path, *options: str) -> list[str]:
    """The command that fetches one file with aria2 over eight connections."""
    command = [programs.client("aria2c", "aria2"), "--no-conf", "-q", "-x8", "-s8", "--min-split-size=1M"]
    return [*command, f"--dir={target.parent}", f"--out={target.name}", *options, url]


def get_url(url: str, target: Path, temporary: Path, sha256: str = "") -> tuple[list[str], dict[str, str]]:
    """The command, and its environment, that fetches one file with `ansible.builtin.get_url`."""
    arguments = {"url": url, "dest": str(target), "force": not sha256}
    if sha256:
        arguments["checksum"] = f"sha256:{sha256}"
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_become=false"]
    command += ["-m", "ansible.builtin.get_url", "-a", json.dumps(arguments)]
    return command, {**os.environ, "ANSIBLE_REMOTE_TEMP": str(temporary), "ANSIBLE_NOCOLOR": "1"}


def kill_when(process: subprocess.Popen[bytes], due: Callable[[], bool]) -> bool:
    """SIGKILL a process and all that it started once something is so; tell whether it still ran then."""
    while process.poll() is None:
        if due():
            for number in (process.pid, *_descendants(process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            process.wait()
            return True
    return False


def _descendants(ancestor: int) -> list[int]:
    """The processes below one, whatever session they are in: Ansible's workers make their own."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for parent in found:
        found += [number for number, above in parents.items() if above == parent]
    return found[1:]
