"""The planner's input, typed; `planner.parse` makes it from plain data.

The document is a mapping:

    host: demo1                       # the host to plan for
    plan_only: false                  # true = nothing will be installed: placeholder digests are only warned about
    disk_reserve: 2147483648          # bytes that must stay free
    docker_root: null                 # where Docker keeps images, when it is not /var/lib/docker
    facts_expected: false             # true = facts come later, so that nothing that they tell is judged yet
    incomplete: false                 # true = some hosts' variables wait for facts, so lists may be shorter than later
    hosts:                            # this host; a gateway or monitoring host needs the others too
      demo1:
        kinds: [inference, gateway, monitoring]
        address: 127.0.0.1            # redoubt_private_address; null = not known yet (see incomplete)
        models: [...]                 # redoubt_models
        conversions: [...]            # redoubt_conversions
        gpus: null                    # unknown | a count | a list of UUIDs
        dcgm_method: container        # how the GPUs are watched: container | package | none
        mig: null                     # nvidia_mig_layout
        legacy_runtime: false         # nvidia_container_toolkit_legacy_runtime
        gateway: {server_name: redoubt.lab, https_port: 443}       # null when it is no gateway
    images: {...}                     # redoubt_images
    locks: {...}                      # redoubt_model_locks
    sources: {...}                    # redoubt_sources: a word or a mapping
    depot: {...}                      # see planner.sources.depot; null = the site has none
    lock: null                        # the lock in force for this host, see planner.locked; null = none
    downgrade: false                  # redoubt_lock_downgrade: packages may go back to older versions of the lock
    facts: {...}                      # see Facts; null = unknown
    drained: {h2: {since: ..., by: ..., reason: ...}}              # hosts out of the pool; other names are ignored
    driver: null                      # `expected` of planner.gpu_stack; null = no GPUs, or their driver is not ours
    warnings: []                      # what was noticed while the document was made
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.mig import Entry
from planner.sources import Depot

DOCKER_ROOT = "/var/lib/docker"
KINDS = ("depot", "gateway", "inference", "monitoring")
Gpus = int | str | tuple[str, ...]


@dataclass(frozen=True)
class Resources:
    """Limits of one engine's container; None = no limit."""

    cpus: float | None = None
    memory: str | None = None
    shm_size: str | None = None
    kv_cache_gib: int | None = None


@dataclass(frozen=True)
class Model:
    """One entry of redoubt_models; `where` is its place in the inventory."""

    where: str
    name: str
    engine: str = "vllm"
    gpus: Gpus = "auto"
    context: int | None = None
    concurrency: int | None = None
    port: int | None = None
    balance: str | None = None
    canary: int | None = None
    weight: int | None = None
    image: str | None = None
    revision: str | None = None
    repo: str | None = None
    resources: Resources = Resources()
    engine_args: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversion:
    """One entry of redoubt_conversions; `where`: its place in the inventory; `origin`: the model it is made of."""

    where: str
    name: str
    origin: str
    kind: str
    image: str | None = None
    gpus: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    python: str = "python3"
    resources: Resources = Resources()


@dataclass(frozen=True)
class Image:
    """One entry of redoubt_images."""

    key: str
    name: str
    tag: str
    digest: str | None
    config_digest: str | None
    archive: str | None
    archive_sha256: str | None
    size: int

    @property
    def ref(self) -> str:
        """The name by which containers are started."""
        return f"{self.name}:{self.tag}"


@dataclass(frozen=True)
class Lock:
    """One entry of redoubt_model_locks: the exact files of a model; `repo` is its name on a hub."""

    name: str
    revision: str
    license: str
    total_size: int
    files: tuple[Mapping[str, object], ...]
    repo: str | None = None


@dataclass(frozen=True)
class Host:
    """What the planner knows of one host from the inventory."""

    name: str
    kinds: tuple[str, ...]
    address: str
    models: tuple[Model, ...]
    gpus: int | tuple[str, ...] | None
    mig: tuple[Entry, ...]
    legacy_runtime: bool
    server_name: str | None
    https_port: int
    dcgm_method: str = "container"
    conversions: tuple[Conversion, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What was seen on the host itself; None = not known.

    disks: path -> (filesystem, free bytes); images: identifiers of images that Docker has; weights: published folders;
    tensor_bytes: published folder -> bytes of its tensors, as their headers say; tensor_dtypes: the same by type;
    geometry: published folder -> layers, heads, sizes and so on, as the model's configuration says;
    gpu_rows: what gpu_facts says of each GPU, empty = not known.
    """

    system: str | None = None
    version: str | None = None
    architecture: str | None = None
    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None
    disks: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    images: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()
    tensor_bytes: Mapping[str, int] = field(default_factory=dict)
    tensor_dtypes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    geometry: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gpu_rows: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True)
class Drained:
    """Why a host is out of the gateways' pool: since when (UTC, ISO 8601), by whom, for what (may be empty)."""

    since: str
    by: str
    reason: str


@dataclass(frozen=True)
class Document:
    """The whole input for one host's plan."""

    host: str
    plan_only: bool
    facts_expected: bool
    incomplete: bool
    hosts: tuple[Host, ...]
    images: Mapping[str, Image]
    locks: Mapping[str, Lock]
    sources: Mapping[str, str]
    depot: Depot | None
    lock: Mapping[str, Any] | None
    facts: Facts
    disk_reserve: int
    docker_root: str
    drained: Mapping[str, Drained]
    driver: Mapping[str, Any] | None = None

    @property
    def this(self) -> Host:
        """The host that the plan is for."""
        return next(host for host in self.hosts if host.name == self.host)
