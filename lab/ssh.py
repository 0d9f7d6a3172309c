"""Keys of the lab, and talking to hosts with them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import paths
from lab.errors import LabError
from lab.tools import file_lock, run

PACKAGES = {"ssh": "openssh-client", "ssh-keygen": "openssh-client"}


def client_key() -> Path:
    """The private key that opens all hosts of this cache, made on first use."""
    key = paths.STATE / "keys" / "id_ed25519"
    with file_lock("keys"):
        if not key.exists() or not key.with_suffix(".pub").exists():
            generate(key, "redoubt-lab")
    return key


def forget_client_key() -> None:
    """Remove the key that opens the hosts; the next host gets a new one."""
    with file_lock("keys"):
        shutil.rmtree(paths.STATE / "keys", ignore_errors=True)


def generate(key: Path, comment: str) -> None:
    """Make an ed25519 key pair at ``key`` and ``key``.pub; replaces what is there."""
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = key.with_name(f".{key.name}.new")
    for path in (fresh, fresh.with_name(f"{fresh.name}.pub")):
        path.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh)], what="an SSH key", timeout=30)
    fresh.with_name(f"{fresh.name}.pub").replace(key.with_name(f"{key.name}.pub"))
    fresh.replace(key)


def options(known_hosts: Path) -> list[str]:
    """Options for ssh that trust exactly the host keys in this file and read nobody's own configuration."""
    return [
        "-F", "none",
        "-o", f"UserKnownHostsFile={known_hosts}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "IdentitiesOnly=yes",
        "-o", "IdentityAgent=none",
    ]  # fmt: skip


def command(address: str, user: str, key: Path, known_hosts: Path, words: Sequence[str] = ()) -> list[str]:
    """The ssh command line for a host."""
    program = shutil.which("ssh")
    if program is None:
        raise LabError("ssh is not installed: `apt-get install openssh-client`")
    return [program, *options(known_hosts), "-i", str(key), f"{user}@{address}", *words]


def answers(address: str, user: str, key: Path, known_hosts: Path, seconds: int = 5) -> str | None:
    """None where the host lets us in, else the last line that ssh had to say about it."""
    line = command(address, user, key, known_hosts, ["true"])
    line[1:1] = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={seconds}"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 10, check=False)
    except subprocess.TimeoutExpired:
        return "ssh: no answer"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"ssh ended with {done.returncode}"])[-1]
