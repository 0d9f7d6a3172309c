"""Lab hosts: systemd in a container, reached over SSH like any server."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from lab import container as containers
from lab import engine, images, net, paths, ready, record, ssh
from lab import gap as gaps
from lab.errors import LabError
from lab.record import USERS, Host
from lab.report import QuietReport, Report
from lab.tools import file_lock, require, terminable, write_private

__all__ = [
    "Host", "down", "down_all", "get", "pause", "poweroff", "poweron", "restart", "seal", "status", "unpause",
    "unseal", "up",
]  # fmt: skip

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?")


def up(
    name: str,
    *,
    platform: str = "debian13",
    user: str = "operator",
    media: bool = True,
    docker_volume: bool = True,
    reboots: bool = False,
    gap: bool = False,
    folders: Mapping[str, Path] | None = None,
    report: Report | None = None,
) -> Host:
    """Start a host, or find the one of this name, and wait until it runs and answers SSH.

    A host that cannot be finished is removed again, also on Ctrl-C and SIGTERM. ``user`` is the one that SSH logs in
    as: ``operator`` may become root, ``guest`` may not. A new host that ``reboots`` comes back when it restarts itself,
    with its address; any other one is off then. One behind the ``gap`` is on that network alone (see lab.gap).
    ``folders``: of this machine, by where the host sees them, read-only. Raises LabError with what is wrong and what
    to do.
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
            return _again(existing, name, platform, user, report)
        containers.remove_orphans(client)
        image = images.host_image(client, platform, report)
        with report.phase(f"Start host {name} ({platform})"):
            try:
                return _make(client, name, platform, user, image, media, docker_volume, reboots, gap, folders, report)
            except BaseException:
                _remove(client, name)
                net.remove_unused(client)
                raise


def down(name: str) -> bool:
    """Remove a host with its volume and keys; False where there was none."""
    client = engine.connect()
    with file_lock(f"host-{name}"):
        known = record.folder(name).is_dir()
        if client is None:
            shutil.rmtree(record.folder(name), ignore_errors=True)
            return known
        existing = _find(client, name)
        _remove(client, name)
    net.remove_unused(client)
    return known or existing is not None


def down_all() -> list[str]:
    """Remove all hosts and keys of this cache, and what checkouts that are gone left behind; returns the names."""
    names = {path.name for path in (paths.STATE / "hosts").glob("*")}
    client = engine.connect()
    if client is not None:
        names |= set(containers.remove_orphans(client))
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
    ssh.forget_client_key()
    return sorted(names)


def status() -> list[Host]:
    """All finished hosts of this cache, running or not, by name."""
    client = engine.connect()
    if client is None:
        return []
    found = []
    for item in client.containers.list(all=True, filters={"label": engine.LABEL}, ignore_removed=True):
        name = item.labels.get("redoubt.lab.name", "")
        known = record.load(name) if item.labels.get("redoubt.lab.cache") == str(paths.CACHE) else None
        if known is not None and known.container_id == item.id:
            found.append(replace(known, running=item.status == "running"))
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
            with file_lock("network", machine=True):
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
    ready.wait(item, host, QuietReport())
    return host


def pause(name: str) -> None:
    """Freeze the host: it keeps its address and answers nothing."""
    _container(name)[1].pause()


def unpause(name: str) -> None:
    """Let a frozen host go on."""
    _container(name)[1].unpause()


def _again(existing: Container, name: str, platform: str, user: str, report: Report) -> Host:
    """The host that is there already, running."""
    known = record.load(name)
    if known is None:
        raise LabError(f"container {existing.name} is not a host of this lab: remove it, or take another name")
    if known.platform != platform:
        raise LabError(f"host {name} runs {known.platform}, not {platform}: `./redoubt lab down {name}` first")
    if existing.status == "paused":
        existing.unpause()
    elif existing.status != "running":
        report.step(f"Start host {name} again")
        existing.start()
    host = replace(known, user=user, running=True)
    ready.wait(existing, host, report)
    record.save(host)
    return host


def _make(
    client: docker.DockerClient,
    name: str,
    platform: str,
    user: str,
    image: str,
    media: bool,
    docker_volume: bool,
    reboots: bool,
    gap: bool,
    folders: Mapping[str, Path] | None,
    report: Report,
) -> Host:
    folder = record.folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    host_key = folder / "ssh_host_ed25519_key"
    ssh.generate(host_key, name)
    client_key = ssh.client_key()
    labels = {"redoubt.lab": "1", "redoubt.lab.name": name, "redoubt.lab.cache": str(paths.CACHE)}
    privileged = containers.privileged_works(client, image, report)
    request = containers.create_request(
        client, name, image, labels, privileged=privileged, media=media, docker_volume=docker_volume, reboots=reboots,
        gap=gap, folders=folders,
    )  # fmt: skip
    units: dict[str, str] = {}
    with net.gap(client) if gap else net.both(client) as (control, egress):
        subnet = net.subnet(control)
        address = net.choose_address(subnet, _addresses(client, str(control.name)))
        endpoint = {"IPAMConfig": {"IPv4Address": address}}
        request["NetworkingConfig"] = {"EndpointsConfig": {control.name: endpoint}}
        item = containers.create(client, request, name)
        if egress is None:
            units = {gaps.UNIT: gaps.unit(str(subnet[1]))}
        else:
            egress.connect(item)
    item.put_archive("/", containers.key_files(host_key, client_key, units))
    public = host_key.with_suffix(".pub").read_text(encoding="ascii").split()
    known_hosts = folder / "known_hosts"
    write_private(known_hosts, f"{address} {public[0]} {public[1]}\n")
    item.start()
    host = Host(name, platform, address, 22, user, client_key, known_hosts, str(item.id), running=True)
    ready.wait(item, host, report)
    record.save(host)
    return host


def _addresses(client: docker.DockerClient, network: str) -> list[str]:
    """The addresses of all lab hosts on a network, also of those that are off."""
    found = []
    for item in client.containers.list(all=True, filters={"label": engine.LABEL}, ignore_removed=True):
        endpoint = item.attrs["NetworkSettings"]["Networks"].get(network) or {}
        found += [endpoint.get("IPAddress") or "", (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""]
    return [address for address in found if address]


def _find(client: docker.DockerClient, name: str) -> Container | None:
    """The finished container of a host; removes a half-made one."""
    try:
        item = client.containers.get(containers.container_name(name))
    except NotFound:
        return None
    known = record.load(name)
    if known is not None and known.container_id == item.id and item.status != "dead":
        return item
    _remove(client, name)
    return None


def _remove(client: docker.DockerClient, name: str) -> None:
    with contextlib.suppress(NotFound):
        client.containers.get(containers.container_name(name)).remove(force=True, v=True)
    with contextlib.suppress(NotFound):
        client.volumes.get(containers.volume_name(name)).remove(force=True)
    shutil.rmtree(record.folder(name), ignore_errors=True)


def _ours(labels: dict[str, str]) -> bool:
    """Whether this cache made the thing, or one that is there no more."""
    cache = labels.get("redoubt.lab.cache")
    return cache is not None and (cache == str(paths.CACHE) or not Path(cache).is_dir())


def _container(name: str) -> tuple[docker.DockerClient, Container]:
    client = engine.connect()
    if client is None:
        raise LabError(f"no container engine answers, so host {name} is off: `./redoubt lab up {name}` starts both")
    return client, client.containers.get(get(name).container_id)
