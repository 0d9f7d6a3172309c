"""From plain data to the planner's typed document; every mistake is noted and parsing goes on."""

from __future__ import annotations

from collections.abc import Mapping

from planner import conversions, fields, locked, mig, weights_facts
from planner import sources as origins
from planner.document import DOCKER_ROOT, KINDS, Document, Drained, Facts, Gpus, Host, Image, Lock, Model, Resources
from planner.problems import Problems


def parse(raw: Mapping[str, object], problems: Problems) -> Document | None:
    """Read a document; mistakes go to `problems`. None when there is not even a host to plan for."""
    host = raw.get("host")
    hosts_raw = raw.get("hosts")
    if not isinstance(host, str) or not isinstance(hosts_raw, Mapping) or not isinstance(hosts_raw.get(host), Mapping):
        problems.add("document.hosts", "the host to plan for is not described", "give `host` and `hosts[host]`")
        return None
    lock = {**lock, "downgrade": raw.get("downgrade")} if isinstance(lock := raw.get("lock"), Mapping) else None
    images_raw = locked.images(fields.mapping(raw, "images", "redoubt_images", problems), lock, problems)
    images = _images(images_raw, problems)
    locks_raw = locked.models(fields.mapping(raw, "locks", "redoubt_model_locks", problems), lock, problems)
    locks = _locks(locks_raw, problems)
    warnings = raw.get("warnings")
    for warning in warnings if isinstance(warnings, list | tuple) else ():
        problems.warn(str(warning))
    hosts = tuple(
        _host(name, entry, problems, other=name != host)
        for name, entry in hosts_raw.items()
        if isinstance(name, str) and isinstance(entry, Mapping)
    )
    sources = origins.spread(raw.get("sources"))
    reserve = raw.get("disk_reserve", 0)
    root = raw.get("docker_root")
    return Document(
        host=host,
        plan_only=raw.get("plan_only") is True,
        facts_expected=raw.get("facts_expected") is True,
        incomplete=raw.get("incomplete") is True,
        hosts=hosts,
        images=images,
        locks=locks,
        sources=sources,
        depot=origins.depot(_depot(raw.get("depot"), lock), sources, host, problems),
        lock=lock,
        facts=_facts(raw.get("facts")),
        disk_reserve=reserve if isinstance(reserve, int) else 0,
        docker_root=root if isinstance(root, str) and root else DOCKER_ROOT,
        drained=_drained(raw.get("drained"), {host.name for host in hosts}),
        driver=driver if isinstance(driver := raw.get("driver"), Mapping) else None,
    )


def _depot(raw: object, lock: Mapping[str, object] | None) -> Mapping[str, object]:
    """What is known of the depot; a site that has no name elsewhere has it from its lock."""
    known = raw if isinstance(raw, Mapping) else {}
    return {**known, "site": known.get("site") or (lock or {}).get("site")}


def _host(name: str, raw: Mapping[str, object], all_problems: Problems, *, other: bool) -> Host:
    problems = Problems()
    host = _read_host(name, raw, problems)
    for problem in problems.found:
        all_problems.found.append(problem.on(name) if other else problem)
    return host


def _read_host(name: str, raw: Mapping[str, object], problems: Problems) -> Host:
    kinds_raw = raw.get("kinds")
    kinds = tuple(kind for kind in KINDS if isinstance(kinds_raw, list | tuple) and kind in kinds_raw)
    models_raw = raw.get("models")
    models: list[Model] = []
    if isinstance(models_raw, list | tuple):
        for index, entry in enumerate(models_raw):
            model = _model(entry, f"redoubt_models[{index}]", problems)
            if model is not None:
                models.append(model)
    elif models_raw is not None:
        problems.add("redoubt_models", "it is not a list", "write a list of models", models_raw)
    gateway = raw.get("gateway")
    gateway = gateway if isinstance(gateway, Mapping) else {}
    server_name = gateway.get("server_name")
    https_port = gateway.get("https_port", 443)
    gpus = raw.get("gpus")
    known: int | tuple[str, ...] | None = None
    if isinstance(gpus, int) and not isinstance(gpus, bool) and gpus >= 0:
        known = gpus
    elif isinstance(gpus, list | tuple):
        known = tuple(str(gpu) for gpu in gpus)
    elif gpus is not None:
        why = "it is neither a count nor a list of GPU UUIDs"
        problems.add("preflight_gpus", why, "write a count, such as 8", gpus)
    address = raw.get("address", "127.0.0.1")
    return Host(
        name=name,
        kinds=kinds,
        address=address if isinstance(address, str) else "",
        models=tuple(models),
        gpus=known,
        mig=mig.parse(raw.get("mig"), problems),
        legacy_runtime=raw.get("legacy_runtime") is True,
        server_name=server_name if isinstance(server_name, str) else None,
        https_port=https_port if isinstance(https_port, int) else 443,
        dcgm_method=str(raw.get("dcgm_method") or "container"),
        conversions=conversions.parse(raw.get("conversions"), problems),
    )


def _model(raw: object, where: str, problems: Problems) -> Model | None:
    if not isinstance(raw, Mapping):
        problems.add(where, "a model is a mapping", "write `- name: …` with its fields", raw)
        return None
    name = fields.text(raw, "name", where, problems, pattern=fields.MODEL_NAME)
    if name is None:
        return None
    resources_raw = fields.mapping(raw, "resources", f"{where}.resources", problems)
    source = fields.mapping(raw, "source", f"{where}.source", problems)
    there = f"{where}.resources"
    resources = Resources(
        cpus=fields.number(resources_raw, "cpus", there, problems),
        memory=fields.text(resources_raw, "memory", there, problems, pattern=fields.SIZE, optional=True),
        shm_size=fields.text(resources_raw, "shm_size", there, problems, pattern=fields.SIZE, optional=True),
        kv_cache_gib=fields.integer(resources_raw, "kv_cache_gib", there, problems, low=1),
    )
    return Model(
        where=where,
        name=name,
        engine=fields.text(raw, "engine", where, problems, optional=True) or "vllm",
        gpus=_gpus(raw.get("gpus", "auto"), f"{where}.gpus", problems),
        context=fields.integer(raw, "context", where, problems, low=1),
        concurrency=fields.integer(raw, "concurrency", where, problems, low=1),
        port=fields.integer(raw, "port", where, problems, low=1024, high=65535),
        canary=fields.integer(raw, "canary", where, problems, low=0, high=100),
        weight=fields.integer(raw, "weight", where, problems, low=1, high=100),
        balance=fields.text(raw, "balance", where, problems, pattern=fields.BALANCE, optional=True),
        image=fields.text(raw, "image", where, problems, optional=True),
        revision=fields.text(source, "revision", f"{where}.source", problems, pattern=fields.REVISION, optional=True),
        repo=fields.text(source, "repo", f"{where}.source", problems, pattern=fields.REPO, optional=True),
        resources=resources,
        engine_args=fields.mapping(raw, "engine_args", f"{where}.engine_args", problems),
    )


def _gpus(raw: object, where: str, problems: Problems) -> Gpus:
    if raw == "auto":
        return "auto"
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    if isinstance(raw, list | tuple) and raw and all(isinstance(gpu, int | str) for gpu in raw):
        devices = tuple(str(gpu) for gpu in raw)
        if len(set(devices)) == len(devices):
            return devices
        problems.add(where, "a GPU is named twice", "name each GPU once", list(raw))
        return devices
    problems.add(where, "it is not `auto`, a count, or a list of GPUs", "write auto, 0 (CPU), a count or a list", raw)
    return 0


def _images(raw: Mapping[str, object], problems: Problems) -> dict[str, Image]:
    images: dict[str, Image] = {}
    for key, entry in raw.items():
        where = f"redoubt_images.{key}"
        if not isinstance(entry, Mapping):
            problems.add(where, "an image is a mapping", "copy the entry from the lock", entry)
            continue
        name = fields.text(entry, "name", where, problems)
        tag = fields.text(entry, "tag", where, problems)
        size = fields.integer(entry, "size", where, problems, low=0)
        if name is None or tag is None:
            continue
        images[str(key)] = Image(
            key=str(key),
            name=name,
            tag=tag,
            digest=fields.text(entry, "digest", where, problems, pattern=fields.DIGEST, optional=True),
            config_digest=fields.text(entry, "config_digest", where, problems, pattern=fields.DIGEST, optional=True),
            archive=fields.text(entry, "archive", where, problems, optional=True),
            archive_sha256=fields.text(entry, "archive_sha256", where, problems, pattern=fields.SHA256, optional=True),
            size=size or 0,
        )
    return images


def _locks(raw: Mapping[str, object], problems: Problems) -> dict[str, Lock]:
    locks: dict[str, Lock] = {}
    for name, entry in raw.items():
        where = f"redoubt_model_locks.{name}"
        if not isinstance(entry, Mapping):
            problems.add(where, "a model's lock is a mapping", "copy the entry from the lock", entry)
            continue
        revision = fields.text(entry, "revision", where, problems, pattern=fields.REVISION)
        total_size = fields.integer(entry, "total_size", where, problems, low=1, required=True)
        files = fields.manifest(entry, where, total_size, problems)
        if revision is None or total_size is None or files is None:
            continue
        licence = fields.text(entry, "license", where, problems, optional=True)
        repo = fields.text(entry, "repo", where, problems, pattern=fields.REPO, optional=True)
        locks[str(name)] = Lock(str(name), revision, licence or "unknown", total_size, files, repo)
    return locks


def _drained(raw: object, hosts: set[str]) -> dict[str, Drained]:
    """The marks of hosts that this document describes; a host that left the inventory may have left a mark behind."""
    marks = raw if isinstance(raw, Mapping) else {}
    return {
        name: Drained(*(str(mark.get(key, "")) for key in ("since", "by", "reason")))
        for name, mark in sorted(marks.items())
        if name in hosts and isinstance(mark, Mapping)
    }


def _facts(raw: object) -> Facts:
    """Facts come from our own module; what is absent is unknown, so nothing here is a problem of the operator's."""
    if not isinstance(raw, Mapping):
        return Facts()

    def count(key: str) -> int | None:
        value = raw.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def words(key: str) -> frozenset[str]:
        value = raw.get(key)
        return frozenset(str(item) for item in value) if isinstance(value, list | tuple) else frozenset()

    disks: dict[str, tuple[str, int]] = {}
    disks_raw = raw.get("disks")
    for path, disk in disks_raw.items() if isinstance(disks_raw, Mapping) else ():
        if isinstance(disk, Mapping) and isinstance(disk.get("free_bytes"), int):
            disks[str(path)] = (str(disk.get("filesystem", path)), disk["free_bytes"])
    return Facts(
        system=str(raw["system"]) if raw.get("system") else None,
        version=str(raw["version"]) if raw.get("version") else None,
        architecture=str(raw["architecture"]) if raw.get("architecture") else None,
        cpus=count("cpus"),
        memory=count("memory_bytes"),
        gpus=count("gpus"),
        disks=disks,
        images=words("images"),
        weights=words("weights"),
        tensor_bytes=weights_facts.tensor_bytes(raw.get("tensor_bytes")),
        tensor_dtypes=weights_facts.tensor_dtypes(raw.get("tensor_dtypes")),
        geometry=weights_facts.geometry(raw.get("geometry")),
        gpu_rows=tuple(rows) if isinstance(rows := raw.get("gpu_rows"), list | tuple) else (),
    )
