"""The networks of lab hosts: one without a way out, for control, one to the package sources, one behind the air gap."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from lab import paths
from lab.errors import LabError
from lab.tools import file_lock

INTERNAL = "redoubt-lab"
GAP = f"redoubt-lab-gap-{paths.CHECKOUT}"
EGRESS = "redoubt-lab-egress"
LABELS = {"redoubt.lab": "1"}
#: Host addresses on a network; the first is the bridge's own.
FIRST_HOST = 10

Net = ipaddress.IPv4Network


def candidates() -> Iterable[Net]:
    """Subnets that a lab network may take, in the order of preference."""
    for second in (91, 217, 44):
        for third in range(256):
            yield Net(f"10.{second}.{third}.0/24")


def choose_subnet(taken: Iterable[Net], offers: Iterable[Net]) -> Net:
    """The first offer that overlaps nothing taken. Raises LabError where there is none."""
    busy = [net for net in taken if net.prefixlen > 0]
    for offer in offers:
        if not any(offer.overlaps(net) for net in busy):
            return offer
    raise LabError(
        "no free subnet for the lab's networks: every offered range overlaps a route or network of this machine"
    )


def choose_address(subnet: Net, used: Iterable[str]) -> str:
    """The lowest free host address of a subnet. Raises LabError where all are used."""
    busy = set(used)
    for address in list(subnet.hosts())[FIRST_HOST - 1 :]:
        if str(address) not in busy:
            return str(address)
    raise LabError(f"all addresses of {subnet} are used by lab hosts: remove some with `./redoubt lab down NAME`")


def routes(table: str) -> list[Net]:
    """The destinations in the text of /proc/net/route, without the default route."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            found.append(Net((destination, bin(mask).count("1")), strict=False))
    return found


def ensure(client: docker.DockerClient) -> tuple[Network, Network]:
    """The control network and the one with a way out, made where they are missing.

    To be called under ``file_lock("network", machine=True)``, kept until a container is on them: until then they count
    as unused.
    """
    existing = {network.name: network for network in client.networks.list()}
    for name in (INTERNAL, EGRESS):
        if name not in existing:
            existing[name] = _create(client, name)
    return existing[INTERNAL], existing[EGRESS]


@contextmanager
def both(client: docker.DockerClient) -> Iterator[tuple[Network, Network | None]]:
    """The control network and the one with a way out, kept while the block puts a container on them."""
    with file_lock("network", machine=True):
        yield ensure(client)


@contextmanager
def gap(client: docker.DockerClient) -> Iterator[tuple[Network, Network | None]]:
    """The network behind the air gap and None, for it has no way out; made where it is missing, and kept likewise."""
    with file_lock("network", machine=True):
        found = client.networks.list(names=[GAP], filters={"label": "redoubt.lab=1"})
        yield (found[0] if found else _create(client, GAP)), None


def subnet(network: Network) -> Net:
    """The subnet of one of our networks."""
    network.reload()
    return Net(network.attrs["IPAM"]["Config"][0]["Subnet"])


def remove_unused(client: docker.DockerClient) -> list[str]:
    """Remove our networks that no container is on; returns their names."""
    removed = []
    with file_lock("network", machine=True):
        used = set()
        for container in client.containers.list(all=True, ignore_removed=True):
            used.update(container.attrs["NetworkSettings"]["Networks"])
        for network in client.networks.list(filters={"label": "redoubt.lab=1"}):
            if network.name not in used:
                # Another lab process may have put a container on it a moment ago: then it stays.
                with contextlib.suppress(APIError, NotFound):
                    network.remove()
                    removed.append(str(network.name))
    return removed


def _create(client: docker.DockerClient, name: str) -> Network:
    taken = routes(Path("/proc/net/route").read_text(encoding="ascii"))
    for network in client.networks.list():
        network.reload()
        configs: list[dict[str, Any]] = network.attrs["IPAM"].get("Config") or []
        taken += [Net(config["Subnet"]) for config in configs if "." in config.get("Subnet", "")]
    chosen = choose_subnet(taken, candidates())
    return client.networks.create(
        name,
        driver="bridge",
        internal=name in (INTERNAL, GAP),
        labels=LABELS,
        check_duplicate=True,
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(chosen), gateway=str(chosen[1]))]),
    )
