"""The container engine of this machine: use the one that answers, else start Debian's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from lab import paths
from lab.errors import LabError
from lab.report import Report
from lab.tools import file_lock, find, require, run, write_private

RUN = Path("/var/run")
LOG = paths.STATE / "engine.log"
PID_FILE = paths.STATE / "engine.pid"
LABEL = "redoubt.lab=1"
START_SECONDS = 90


def connect() -> docker.DockerClient | None:
    """A client of the engine that answers now, or None."""
    client = None
    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except (DockerException, OSError):
        if client is not None:
            client.close()
        return None
    return client


def ensure(report: Report) -> docker.DockerClient:
    """A client of a running engine; starts Debian's where none answers.

    Raises LabError where no engine answers and none can be started, saying what to do.
    """
    client = connect()
    if client is not None:
        return client
    with file_lock("engine"):
        client = connect()
        if client is not None:
            return client
        if os.environ.get("DOCKER_HOST"):
            raise LabError(
                f"no engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: start it, or unset DOCKER_HOST"
            )
        if os.geteuid() != 0:
            raise LabError(
                "no container engine answers this user: start Docker and join its group "
                "(`sudo apt-get install docker.io && sudo adduser $USER docker`, then log in anew), or run as root"
            )
        require({"dockerd": "docker.io", "iptables": "iptables", "runc": "runc"}, report)
        with report.phase("Start the container engine"):
            client = connect() or _start()
        _sweep(client, report)
        return client


def stop(report: Report) -> bool:
    """Stop the engine if the lab started it; False where it did not or it is gone already."""
    pid = _read_pid(PID_FILE)
    ours = pid is not None and _is(pid, "dockerd")
    if ours and pid is not None:
        with report.phase("Stop the container engine"):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 60
            while _is(pid, "dockerd") and time.monotonic() < deadline:
                time.sleep(0.2)
            if _is(pid, "dockerd"):
                raise LabError(f"the engine (process {pid}) does not stop: see {LOG}")
    PID_FILE.unlink(missing_ok=True)
    return ours


def _start() -> docker.DockerClient:
    """Start the engine, by systemd where that runs the machine, else apart from this process; wait until it answers."""
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], what="starting docker.service", timeout=START_SECONDS)
        client = connect()
        if client is None:
            raise LabError("docker.service is started but does not answer: see `journalctl -u docker`")
        return client
    clear_stale(RUN)
    program = find("dockerd")
    if program is None:
        raise LabError("dockerd is not there although docker.io is installed: `apt-get install --reinstall docker.io`")
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            pass_fds=(), close_fds=True,
        )  # fmt: skip
    write_private(PID_FILE, f"{process.pid}\n")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        client = connect()
        if client is not None:
            return client
        if process.poll() is not None:
            break
        time.sleep(0.3)
    if process.poll() is None:
        process.terminate()
    PID_FILE.unlink(missing_ok=True)
    tail = "\n".join(LOG.read_bytes()[begin:].decode(errors="replace").splitlines()[-15:])
    raise LabError(f"the engine did not answer within {START_SECONDS} s; the end of {LOG}:\n{tail}")


def clear_stale(run: Path) -> list[Path]:
    """Remove what a killed engine left below ``run`` and would stop a new one; returns what was removed.

    A pid file is stale where its number is no process, or another program's by now.
    """
    removed = []
    for path, program in (
        (run / "docker.pid", "dockerd"),
        (run / "docker/containerd/containerd.pid", "containerd"),
        (run / "docker/containerd/docker-containerd.pid", "containerd"),
    ):
        if path.exists():
            pid = _read_pid(path)
            if pid is None or not _is(pid, program):
                path.unlink()
                removed.append(path)
    if (run / "docker.sock").exists() and not (run / "docker.pid").exists():
        with contextlib.suppress(OSError):
            (run / "docker.sock").unlink()
            removed.append(run / "docker.sock")
    return removed


def _sweep(client: docker.DockerClient, report: Report) -> None:
    """Remove dangling images and never started containers of the lab, left behind by a killed engine."""
    for container in client.containers.list(
        all=True, filters={"label": LABEL, "status": "created"}, ignore_removed=True
    ):
        container.remove(force=True, v=True)
        report.step(f"Removed {container.name}, left half made by an engine that was killed")
    pruned = client.images.prune(filters={"dangling": True, "label": LABEL})
    if pruned.get("SpaceReclaimed"):
        report.step(f"Removed dangling lab images: {pruned['SpaceReclaimed'] // 1_000_000} MB")


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _is(pid: int, program: str) -> bool:
    """Whether the process exists, is no zombie, and runs ``program``."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, IndexError):
        return False
    return state != "Z" and name == program[:15]
