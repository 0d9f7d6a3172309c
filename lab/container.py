"""How a systemd host runs as a container: with --privileged where that works, else with named capabilities."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import docker
from docker.errors import APIError, NotFound

from lab import paths
from lab.report import Report
from lab.tools import file_lock, write_private

#: What systemd and a container engine inside need on top of Docker's default capabilities.
CAPABILITIES = (
    "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_MODULE", "DAC_READ_SEARCH", "SYS_NICE", "SYS_TIME", "SYS_BOOT",
    "SYSLOG", "IPC_LOCK", "MKNOD", "LINUX_IMMUTABLE", "SYS_TTY_CONFIG", "LEASE", "NET_BROADCAST", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_CONTROL", "AUDIT_READ",
)  # fmt: skip
TMPFS = {"/run": "", "/run/lock": "", "/tmp": "exec,mode=1777"}
PROBE = "redoubt-lab-probe"


def rights(privileged: bool, cgroup_version: str) -> dict[str, Any]:
    """The part of a container's HostConfig that gives a systemd host its rights.

    With version 1 control groups the host sees the machine's own hierarchy, the only way for systemd there; with
    version 2 it gets a namespace of its own.
    """
    config: dict[str, Any] = {"CgroupnsMode": "host" if cgroup_version == "1" else "private", "Privileged": privileged}
    if not privileged:
        config["CapAdd"] = list(CAPABILITIES)
        config["SecurityOpt"] = ["seccomp=unconfined", "apparmor=unconfined"]
        # The command line client turns `systempaths=unconfined` into these; an engine inside needs it.
        config["MaskedPaths"] = []
        config["ReadonlyPaths"] = []
    if cgroup_version == "1":
        config["Binds"] = ["/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    return config


def command(image_command: list[str], privileged: bool, cgroup_version: str) -> list[str]:
    """What the container runs: the image's own init, after making version 2 control groups writable where needed."""
    if privileged or cgroup_version == "1":
        return image_command
    return ["/bin/sh", "-c", 'mount -o remount,rw /sys/fs/cgroup; exec "$@"', "sh", *image_command]


def privileged_works(client: docker.DockerClient, image: str, report: Report) -> bool:
    """Whether this engine can start a privileged container; tried once per engine and remembered."""
    memo = paths.STATE / "privileged.json"
    engine = str(client.info().get("ID", ""))
    with file_lock("probe"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads(memo.read_text(encoding="utf-8"))
            if known["engine"] == engine:
                return bool(known["privileged"])
        works = _probe(client, image)
        write_private(memo, json.dumps({"engine": engine, "privileged": works}) + "\n")
    report.step(f"Privileged containers {'work' if works else 'do not work: capabilities are listed one by one'} here")
    return works


def _probe(client: docker.DockerClient, image: str) -> bool:
    with contextlib.suppress(NotFound):
        client.containers.get(PROBE).remove(force=True)
    config = client.api.create_host_config(privileged=True)
    created = client.api.create_container(
        image, command=["/bin/true"], name=PROBE, host_config=config, labels={"redoubt.lab": "1"}
    )
    try:
        client.api.start(created["Id"])
        return bool(client.api.wait(created["Id"], timeout=30)["StatusCode"] == 0)
    except APIError:
        return False
    finally:
        client.api.remove_container(created["Id"], force=True, v=True)
