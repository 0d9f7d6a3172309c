"""The planner's document of one host, from the variables of the hosts of its site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from planner import sources
from planner.inventory import kinds_of


class KnownHost(Protocol):
    """What is known of a host: values by variable, variables without a value yet, and whom it knows as drained."""

    values: dict[str, Any]
    unknown: set[str]
    drained: Mapping[str, Any]


def document(
    name: str,
    this: KnownHost,
    groups: Mapping[str, Sequence[str]],
    other_host: Callable[[str], KnownHost],
    needed: frozenset[str],
    *,
    later: bool,
    disk_reserve: int,
) -> dict[str, Any]:
    """Return the document (see planner.document) of the host `name`, without facts.

    groups: hosts by group; needed: the variables of another host without which it cannot be planned for; later: what is
    not known yet will be, so nobody is left out for it; disk_reserve: bytes that must stay free.
    """
    kinds = kinds_of(name, groups)
    warnings = [] if kinds else [f"{name} is in no group, so it takes no part in the service"]
    members = list(dict.fromkeys(host for hosts in groups.values() for host in hosts))
    # A gateway needs the engines' addresses, a monitoring host everybody's; the others need only themselves.
    wanted = members if {"gateway", "monitoring"} & set(kinds) else []
    entries: dict[str, dict[str, Any]] = {}
    drained: dict[str, Any] = {}
    incomplete = False
    for other in dict.fromkeys([*wanted, name]):
        host = this if other == name else other_host(other)
        drained |= host.drained
        entry = host_entry(host.values, kinds_of(other, groups))
        if "redoubt_private_address" in host.unknown:
            entry["address"] = None
        if later:
            entries[other] = entry
            incomplete = incomplete or bool(host.unknown & needed)
        elif other != name and host.unknown & needed:
            listed = ", ".join(sorted(host.unknown & needed))
            warnings.append(f"{other} is left out of the plan of {name}: {listed} cannot be evaluated now")
        else:
            entries[other] = entry
    return {
        "host": name,
        "incomplete": incomplete,
        "docker_root": this.values.get("docker_data_root"),
        "disk_reserve": disk_reserve,
        "hosts": entries,
        "images": this.values.get("redoubt_images"),
        "locks": this.values.get("redoubt_model_locks"),
        "sources": this.values.get("redoubt_sources"),
        "depot": _depot(this, name, groups, other_host),
        "downgrade": this.values.get("redoubt_lock_downgrade"),
        "drained": drained,
        "warnings": warnings,
    }


def _depot(
    this: KnownHost, name: str, groups: Mapping[str, Sequence[str]], other_host: Callable[[str], KnownHost]
) -> dict[str, Any] | None:
    """Return what planner.sources.depot wants to know of the site's depot; null where nothing comes from one."""
    if "depot" not in sources.spread(this.values.get(sources.VARIABLE)).values():
        return None
    keeper = next(iter(groups.get("depot", ())), None)
    host = None if keeper is None else this if keeper == name else other_host(keeper)
    address = None
    if host is not None and "redoubt_private_address" not in host.unknown:
        address = host.values.get("redoubt_private_address", "127.0.0.1")
    return {
        "given": this.values.get("redoubt_depot"),
        "site": this.values.get("redoubt_site"),
        "host": keeper,
        "address": address,
        "port": host.values.get("depot_port") if host is not None else None,
    }


def host_entry(values: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the planner's description of a host from its variables."""
    names = values.get("gateway_server_names")
    return {
        "kinds": list(kinds),
        "address": values.get("redoubt_private_address", "127.0.0.1"),
        "models": values.get("redoubt_models") or [],
        "conversions": values.get("redoubt_conversions"),
        "gpus": values.get("preflight_gpus"),
        "dcgm_method": values.get("dcgm_method"),
        "mig": values.get("nvidia_mig_layout"),
        "legacy_runtime": values.get("nvidia_container_toolkit_legacy_runtime", False),
        "gateway": {
            "server_name": names[0] if isinstance(names, list) and names else None,
            "https_port": values.get("gateway_https_port", 443),
        },
    }
