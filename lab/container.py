"""How a systemd host runs as a container: with --privileged where that works, else with named capabilities."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from lab import debian, paths
from lab.record import USERS
from lab.report import Report
from lab.tools import file_lock, write_private

#: What systemd and a container engine inside need on top of Docker's default capabilities.
CAPABILITIES = (
    "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_MODULE", "DAC_READ_SEARCH", "SYS_NICE", "SYS_TIME", "SYS_BOOT",
    "SYSLOG", "IPC_LOCK", "MKNOD", "LINUX_IMMUTABLE", "SYS_TTY_CONFIG", "LEASE", "NET_BROADCAST", "WAKE_ALARM",
    "BLOCK_SUSPEND", "AUDIT_CONTROL", "AUDIT_READ",
)  # fmt: skip
# S108 warns of temporary files in a shared folder; this is a mount point.
TMPFS = {"/run": "", "/run/lock": "", "/tmp": "exec,mode=1777"}  # noqa: S108


def container_name(name: str) -> str:
    """The container of a host: each checkout has its own, so that none stands in the way of another's."""
    return f"redoubt-lab-{paths.CHECKOUT}-{name}"


def volume_name(name: str) -> str:
    """The volume on a host's /var/lib/docker."""
    return f"{container_name(name)}-docker"


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
        client.containers.get(container_name("_probe")).remove(force=True)
    config = client.api.create_host_config(privileged=True)
    created = client.api.create_container(
        image, command=["/bin/true"], name=container_name("_probe"), host_config=config, labels={"redoubt.lab": "1"}
    )
    try:
        client.api.start(created["Id"])
        return bool(client.api.wait(created["Id"], timeout=30)["StatusCode"] == 0)
    except APIError:
        return False
    finally:
        client.api.remove_container(created["Id"], force=True, v=True)


def create_request(
    client: docker.DockerClient,
    name: str,
    image: str,
    labels: dict[str, str],
    *,
    privileged: bool,
    media: bool,
    docker_volume: bool,
    reboots: bool = False,
    gap: bool = False,
    folders: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """What the engine's API wants to hear about the container of a host; makes its volume.

    The reboot call of a container's init ends it with status 129; the engine starts it again where that is a failure.
    """
    version = str(client.info().get("CgroupVersion", "1"))
    mounts: list[dict[str, Any]] = []
    if docker_volume:
        volume = client.volumes.create(volume_name(name), labels=labels)
        mounts.append({"Type": "volume", "Source": volume.name, "Target": "/var/lib/docker"})
    if media:
        paths.MEDIA.mkdir(parents=True, exist_ok=True)
        mounts.append({"Type": "bind", "Source": str(paths.MEDIA), "Target": "/media/redoubt", "ReadOnly": True})
    for target, source in (folders or {}).items():
        mounts.append({"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True})
    init = list(client.images.get(image).attrs["Config"]["Cmd"])
    return {
        "Image": image,
        "Cmd": command(init, privileged, version),
        "Hostname": name,
        "Labels": labels,
        "HostConfig": {
            **rights(privileged, version),
            "RestartPolicy": {"Name": "on-failure" if reboots else "no"},
            "Tmpfs": TMPFS,
            "Mounts": mounts,
            "ExtraHosts": [] if gap else [f"{site}:{where}" for site, where in sorted(debian.machine_sites().items())],
        },
    }


def key_files(host_key: Path, client_key: Path, units: Mapping[str, str] | None = None) -> bytes:
    """A tar with the host's own key, for each user the key that opens the host, and systemd units (name: text)."""
    public = host_key.with_suffix(".pub")
    opener = client_key.with_suffix(".pub").read_bytes()
    files = [
        ("etc/ssh/ssh_host_ed25519_key", host_key.read_bytes(), 0o600, 0),
        ("etc/ssh/ssh_host_ed25519_key.pub", public.read_bytes(), 0o644, 0),
        *(
            (f"{'root' if user == 'root' else f'home/{user}'}/.ssh/authorized_keys", opener, 0o600, number)
            for user, number in USERS.items()
        ),
        *((f"etc/systemd/system/{unit}", text.encode(), 0o644, 0) for unit, text in (units or {}).items()),
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content, mode, owner in files:
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.uid, info.gid, info.mtime = len(content), mode, owner, owner, time.time()
            tar.addfile(info, io.BytesIO(content))
        for unit in units or {}:
            info = tarfile.TarInfo(f"etc/systemd/system/sysinit.target.wants/{unit}")
            info.type, info.linkname = tarfile.SYMTYPE, f"../{unit}"
            tar.addfile(info)
    return buffer.getvalue()


def create(client: docker.DockerClient, request: dict[str, Any], name: str) -> Container:
    """Create the container of a host; it does not run yet."""
    # docker's own types lack this call.
    made = client.api.create_container_from_config(request, container_name(name))  # type: ignore[no-untyped-call]
    return client.containers.get(str(made["Id"]))


def remove_orphans(client: docker.DockerClient) -> list[str]:
    """Remove the hosts of checkouts that are gone, which nobody else would; returns their names."""
    removed = []
    for item in client.containers.list(all=True, filters={"label": "redoubt.lab=1"}, ignore_removed=True):
        cache = item.labels.get("redoubt.lab.cache")
        if cache and item.labels.get("redoubt.lab.name") and not Path(cache).is_dir():
            with contextlib.suppress(NotFound):
                item.remove(force=True, v=True)
                removed.append(item.labels["redoubt.lab.name"])
            with contextlib.suppress(NotFound):
                client.volumes.get(f"{item.name}-docker").remove(force=True)
    return removed
