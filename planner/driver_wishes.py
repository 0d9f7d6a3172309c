"""What an operator wishes of the driver: the variables of the role nvidia_driver, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "nvidia_driver_"
# Whether the driver is managed at all.
MANAGE = "nvidia_driver_manage"


@dataclass(frozen=True)
class Wishes:
    """The role's variables without their prefix; see its argument specification, which has the same defaults."""

    version: str = "580.126.20"
    source: str = "nvidia"
    module: str = "auto"
    kernel: str = ""
    hold: bool = True
    allow_downgrade: bool = False
    secure_boot_key_enrolled: bool = False
    peermem: bool = False
    disable_hmm: bool = False
    dcgm_version: str = "4.6.0"
    imex_nodes: tuple[str, ...] = ()
    extra_packages: tuple[str, ...] = ()
    expected_gpus: int = 0
    repository_url: str = "https://developer.download.nvidia.com/compute/cuda/repos"
    repository_key: str = ""
    repository_key_url: str = ""
    repository_key_fingerprints: tuple[str, ...] = ()
    remove_old_sources: bool = False


NAMES = tuple(f"{PREFIX}{one.name}" for one in fields(Wishes))


def wishes(variables: Mapping[str, Any]) -> Wishes:
    """Return the wishes among a host's variables; types were checked by the argument specification."""
    given = {name: variables[name] for name in NAMES if name in variables}
    return Wishes(**{name.removeprefix(PREFIX): _frozen(value) for name, value in given.items()})


def _frozen(value: Any) -> Any:
    return tuple(str(item) for item in value) if isinstance(value, list) else value
