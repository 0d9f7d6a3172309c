"""Lab hosts: systemd in a container, reached over SSH like any server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from lab import container as containers
from lab import debian, engine, images, net, paths, ssh
from lab.errors import LabError
from lab.report import QuietReport, Report
from lab.tools import file_lock, require, terminable, write_private

PREFIX = "redoubt-lab-"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?")
#: The users in the host images, with the numbers that the recipe gives them.
USERS = {"root": 0, "operator": 1000, "guest": 1001}
READY_SECONDS = 90


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


def up(
    name: str,
    *,
    platform: str = "debian13",
    user: str = "operator",
    media: bool = True,
    docker_volume: bool = True,
    report: Report | None = None,
) -> Host:
    """Start a host, or find the one of this name, and wait until it runs and answers SSH.

    A host that cannot be finished is removed again, also on Ctrl-C and SIGTERM. ``user`` is the one that SSH logs in
    as: ``operator`` may become root, ``guest`` may not. Raises LabError with what is wrong and what to do.
    """
    report = report or QuietReport()
    if not NAME.fullmatch(name):
        raise LabError(f"host name {name!r}: use lower-case letters, digits and dashes, at most 42")
    if platform not in images.PLATFORMS:
        raise LabError(f"platform {platform!r} of host {name}: there is {', '.join(images.PLATFORMS)}")
    if user not in USERS:
        raise LabError(f"user {user!r} of host {name}: there is {', '.join(USERS)}")
    require(ssh.PACKAGES, report)
    client = engine.ensure(report)
    with terminable(), file_lock(f"host-{name}"):
        existing = _find(client, name)
        if existing is not None:
            return _again(client, existing, name, platform, user, report)
        image = images.host_image(client, platform, report)
        with report.phase(f"Start host {name} ({platform})"):
            try:
                return _make(client, name, platform, user, image, media, docker_volume, report)
            except BaseException:
                _remove(client, name)
                raise


def down(name: str) -> bool:
    """Remove a host with its volume and keys; False where there was none. Raises LabError for another checkout's."""
    client = engine.connect()
    with file_lock(f"host-{name}"):
        known = _folder(name).is_dir()
        if client is None:
            shutil.rmtree(_folder(name), ignore_errors=True)
            return known
        existing = _find(client, name)
        _remove(client, name)
    net.remove_unused(client)
    return known or existing is not None


def down_all() -> list[str]:
    """Remove all hosts of this cache, and what checkouts that are gone left behind; returns their names."""
    names = {path.name for path in (paths.STATE / "hosts").glob("*")}
    client = engine.connect()
    if client is not None:
        for item in client.containers.list(all=True, filters={"label": engine.LABEL}, ignore_removed=True):
            if item.labels.get("redoubt.lab.name") and _ours(item.labels):
                names.add(item.labels["redoubt.lab.name"])
    for name in sorted(names):
        down(name)
    if client is not None:
        for volume in client.volumes.list(filters={"label": engine.LABEL}):
            if _ours(volume.attrs.get("Labels") or {}):
                volume.remove()
        net.remove_unused(client)
    return sorted(names)


def status() -> list[Host]:
    """All finished hosts of this cache, running or not, by name."""
    client = engine.connect()
    if client is None:
        return []
    found = []
    for item in client.containers.list(all=True, filters={"label": engine.LABEL}, ignore_removed=True):
        name = item.labels.get("redoubt.lab.name", "")
        record = _record(name) if item.labels.get("redoubt.lab.cache") == str(paths.CACHE) else None
        if record is not None and record["container_id"] == item.id:
            found.append(_host(record, item.status == "running"))
    return sorted(found, key=lambda host: host.name)


def get(name: str) -> Host:
    """The host of this name. Raises LabError where there is none."""
    for host in status():
        if host.name == name:
            return host
    raise LabError(
        f"there is no lab host {name}: `./redoubt lab up {name}` makes it, `./redoubt lab status` lists them"
    )


def seal(name: str) -> None:
    """Take away the host's way out; it stays reachable on the control network. Sealing twice does nothing."""
    client, item = _container(name)
    with file_lock(f"host-{name}"):
        item.reload()
        if net.EGRESS in item.attrs["NetworkSettings"]["Networks"]:
            client.networks.get(net.EGRESS).disconnect(item)


def unseal(name: str) -> None:
    """Give the host its way out back."""
    client, item = _container(name)
    with file_lock(f"host-{name}"):
        item.reload()
        if net.EGRESS not in item.attrs["NetworkSettings"]["Networks"]:
            with file_lock("network"):
                net.ensure(client)[1].connect(item)


def restart(name: str, *, hard: bool = False) -> Host:
    """Shut the host down (``hard``: cut its power), start it again and wait for it; its address stays the same."""
    poweroff(name, hard=hard)
    return poweron(name)


def poweroff(name: str, *, hard: bool = False) -> None:
    """Shut the host down, or cut its power; its disks stay."""
    _, item = _container(name)
    if hard and item.status == "running":
        item.kill()
        item.wait(timeout=60)
    else:
        item.stop(timeout=60)


def poweron(name: str) -> Host:
    """Start a host that is off and wait until it answers."""
    _, item = _container(name)
    item.start()
    host = get(name)
    _wait(item, host, QuietReport())
    return host


def pause(name: str) -> None:
    """Freeze the host: it keeps its address and answers nothing."""
    _container(name)[1].pause()


def unpause(name: str) -> None:
    """Let a frozen host go on."""
    _container(name)[1].unpause()


def _again(
    client: docker.DockerClient, existing: Container, name: str, platform: str, user: str, report: Report
) -> Host:
    """The host that is there already, running."""
    record = _record(name)
    if record is None:
        raise LabError(f"container {existing.name} is not a host of this lab: remove it, or take another name")
    if record["platform"] != platform:
        raise LabError(f"host {name} runs {record['platform']}, not {platform}: `./redoubt lab down {name}` first")
    if existing.status == "paused":
        existing.unpause()
    elif existing.status != "running":
        report.step(f"Start host {name} again")
        existing.start()
    host = _host({**record, "user": user}, running=True)
    _wait(existing, host, report)
    return host


def _make(
    client: docker.DockerClient,
    name: str,
    platform: str,
    user: str,
    image: str,
    media: bool,
    docker_volume: bool,
    report: Report,
) -> Host:
    folder = _folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    host_key = folder / "ssh_host_ed25519_key"
    ssh.generate(host_key, name)
    client_key = ssh.client_key()
    privileged = containers.privileged_works(client, image, report)
    version = str(client.info().get("CgroupVersion", "1"))
    labels = {"redoubt.lab": "1", "redoubt.lab.name": name, "redoubt.lab.cache": str(paths.CACHE)}
    config = _config(client, name, image, labels, privileged, version, media, docker_volume)
    with file_lock("network"):
        internal, egress = net.ensure(client)
        address = net.choose_address(net.subnet(internal), _addresses(client))
        endpoint = {"IPAMConfig": {"IPv4Address": address}}
        config["NetworkingConfig"] = {"EndpointsConfig": {net.INTERNAL: endpoint}}
        created = client.api.create_container_from_config(config, f"{PREFIX}{name}")
        item = client.containers.get(created["Id"])
        record: dict[str, Any] = {
            "name": name, "platform": platform, "address": address, "port": 22, "user": user,
            "key_file": str(client_key), "known_hosts_file": str(folder / "known_hosts"), "container_id": item.id,
        }  # fmt: skip
        egress.connect(item)
    item.put_archive("/", _keys(host_key, client_key))
    public = host_key.with_suffix(".pub").read_text(encoding="ascii").split()
    write_private(folder / "known_hosts", f"{address} {public[0]} {public[1]}\n")
    item.start()
    host = _host(record, running=True)
    _wait(item, host, report)
    write_private(folder / "record.json", json.dumps(record) + "\n")
    return host


def _config(
    client: docker.DockerClient,
    name: str,
    image: str,
    labels: dict[str, str],
    privileged: bool,
    version: str,
    media: bool,
    docker_volume: bool,
) -> dict[str, Any]:
    """What the engine's API wants to hear about the container."""
    rights = containers.rights(privileged, version)
    mounts: list[dict[str, Any]] = []
    if docker_volume:
        volume = client.volumes.create(f"{PREFIX}{name}-docker", labels=labels)
        mounts.append({"Type": "volume", "Source": volume.name, "Target": "/var/lib/docker"})
    if media:
        paths.MEDIA.mkdir(parents=True, exist_ok=True)
        mounts.append({"Type": "bind", "Source": str(paths.MEDIA), "Target": "/media/redoubt", "ReadOnly": True})
    init = list(client.images.get(image).attrs["Config"]["Cmd"])
    return {
        "Image": image,
        "Cmd": containers.command(init, privileged, version),
        "Hostname": name,
        "Labels": labels,
        "HostConfig": {
            **rights,
            "Tmpfs": containers.TMPFS,
            "Mounts": mounts,
            "ExtraHosts": [f"{site}:{address}" for site, address in sorted(debian.machine_sites().items())],
        },
    }


def _addresses(client: docker.DockerClient) -> list[str]:
    """The control addresses of all lab hosts, also of those that are off."""
    found = []
    for item in client.containers.list(all=True, filters={"label": engine.LABEL}, ignore_removed=True):
        endpoint = item.attrs["NetworkSettings"]["Networks"].get(net.INTERNAL) or {}
        found += [endpoint.get("IPAddress") or "", (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""]
    return [address for address in found if address]


def _keys(host_key: Path, client_key: Path) -> bytes:
    """A tar with the host's own key and, for each user, the key that opens the host."""
    public = host_key.with_suffix(".pub")
    opener = client_key.with_suffix(".pub").read_bytes()
    files = [
        ("etc/ssh/ssh_host_ed25519_key", host_key.read_bytes(), 0o600, 0),
        ("etc/ssh/ssh_host_ed25519_key.pub", public.read_bytes(), 0o644, 0),
        *(
            (f"{'root' if user == 'root' else f'home/{user}'}/.ssh/authorized_keys", opener, 0o600, number)
            for user, number in USERS.items()
        ),
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content, mode, owner in files:
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.uid, info.gid, info.mtime = len(content), mode, owner, owner, time.time()
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _wait(item: Container, host: Host, report: Report) -> None:
    """Wait until systemd has started all and SSH lets us in. Raises LabError with what is missing."""
    deadline = time.monotonic() + READY_SECONDS
    state = "not started"
    while time.monotonic() < deadline:
        item.reload()
        if item.status != "running":
            tail = item.logs(tail=15).decode(errors="replace").strip()
            raise LabError(f"host {host.name} stopped while starting ({item.status}):\n{tail}")
        state = item.exec_run(["systemctl", "is-system-running"]).output.decode(errors="replace").strip()
        if state in ("running", "degraded"):
            break
        time.sleep(0.3)
    else:
        raise LabError(f"host {host.name}: systemd is still {state!r} after {READY_SECONDS} s")
    if state == "degraded":
        failed = item.exec_run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).output.decode()
        units = ", ".join(line.split()[0] for line in failed.splitlines() if line.strip())
        report.step(f"Host {host.name}: failed units: {units}")
    problem: str | None = "no answer"
    while time.monotonic() < deadline:
        problem = ssh.answers(host.address, host.user, host.key_file, host.known_hosts_file)
        if problem is None:
            return
        time.sleep(0.3)
    raise LabError(f"host {host.name} at {host.address} lets no one in over SSH: {problem}")


def _find(client: docker.DockerClient, name: str) -> Container | None:
    """The finished container of a host; removes half-made ones and those of checkouts that are gone.

    Raises LabError where the host is another checkout's.
    """
    try:
        item = client.containers.get(f"{PREFIX}{name}")
    except NotFound:
        return None
    if not _ours(item.labels):
        where = item.labels.get("redoubt.lab.cache", "another program")
        raise LabError(f"the lab host {name} belongs to {where}: run `lab down {name}` there, or take another name")
    record = _record(name)
    if record is not None and record["container_id"] == item.id and item.status != "dead":
        return item
    _remove(client, name)
    return None


def _remove(client: docker.DockerClient, name: str) -> None:
    with contextlib.suppress(NotFound):
        client.containers.get(f"{PREFIX}{name}").remove(force=True, v=True)
    with contextlib.suppress(NotFound):
        client.volumes.get(f"{PREFIX}{name}-docker").remove(force=True)
    shutil.rmtree(_folder(name), ignore_errors=True)


def _ours(labels: dict[str, str]) -> bool:
    """Whether this cache made the thing, or one that is there no more."""
    cache = labels.get("redoubt.lab.cache")
    return cache is not None and (cache == str(paths.CACHE) or not os.path.isdir(cache))


def _container(name: str) -> tuple[docker.DockerClient, Container]:
    client = engine.connect()
    if client is None:
        raise LabError(f"no container engine answers, so host {name} is off: `./redoubt lab up {name}` starts both")
    return client, client.containers.get(get(name).container_id)


def _folder(name: str) -> Path:
    return paths.STATE / "hosts" / name


def _record(name: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((_folder(name) / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record


def _host(record: dict[str, Any], running: bool) -> Host:
    known = {**record, "key_file": Path(record["key_file"]), "known_hosts_file": Path(record["known_hosts_file"])}
    return Host(running=running, **known)


def as_dict(host: Host) -> dict[str, Any]:
    """The host as plain data."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(host).items()}
