"""The plan of one host. Pure: the same document always gives the same plan."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from module_utils.gpu.pci import usable
from planner import container_toolkit, conversions, entries, facts, gpus, mig, pools, sources, watch
from planner.artifacts import Artifacts
from planner.document import Document, Host, Model
from planner.engines import Start
from planner.parse import parse
from planner.problems import Problem, Problems, report
from planner.registry import ENGINES, NOT_YET

SCHEMA = 1
FIRST_PORT = 8101
# Taken on every host (SSH, gateway, monitoring): an engine there would stop another service.
RESERVED_PORTS = {
    3000: "Grafana",
    9090: "Prometheus",
    9093: "Alertmanager",
    9100: "node exporter",
    9115: "blackbox",
    9400: "the DCGM exporter",
}
MODELS_ROOT = "/srv/redoubt/models"
MONITORING_IMAGES = ("prometheus", "alertmanager", "node_exporter", "blackbox_exporter")

Plan = dict[str, Any]


class PlanRefused(Exception):
    """The document cannot be planned; `problems` says why, all at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(report(problems))
        self.problems = problems


def plan(document: Mapping[str, object]) -> Plan:
    """Return the plan of `document["host"]`; raise PlanRefused with every problem."""
    made, problems = evaluate(document)
    if problems or made is None:
        raise PlanRefused(problems)
    return made


def evaluate(document: Mapping[str, object]) -> tuple[Plan | None, list[Problem]]:
    """Return the plan as far as it goes, and every problem found; warnings are in the plan."""
    problems = Problems()
    parsed = parse(document, problems)
    if parsed is None:
        return None, problems.found
    return _Maker(parsed, problems).make(), problems.found


class _Maker:
    """One planning run: the document, what was found wrong, and what the host needs so far."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document = document
        self.problems = problems
        self.artifacts = Artifacts(document, problems)

    def make(self) -> Plan:
        this = self.document.this
        self._check_hosts()
        engines = self._engines(this) if "inference" in this.kinds else []
        converted = self._conversions(this, engines)
        gateway = self._gateway(this) if "gateway" in this.kinds else None
        monitoring = self._monitoring(this) if "monitoring" in this.kinds else None
        exporter = self._exporter(this)
        gpu_exporter = self._gpu_exporter(this)
        expected = watch.gpus_expected(this, self.document.driver, self.document.facts.gpus)
        images, weights = self.artifacts.images, self.artifacts.weights
        disk = facts.disk_needs(self.document, list(images.values()), list(weights.values()), MODELS_ROOT)
        facts.check(self.document, disk, self.problems)
        for model in gateway["models"] if gateway else ():
            if not model["servers"]:
                self.problems.warn(f"{model['name']} is served by nobody: all its hosts are drained")
        self.artifacts.warn_of_unknown_digests()
        return {
            "schema": SCHEMA,
            "host": this.name,
            "address": this.address,
            "kinds": list(this.kinds),
            "engines": engines,
            "images": [entries.image_entry(images[key]) for key in sorted(images)],
            "weights": [entries.weights_entry(lock) for lock in weights.values()],
            "conversions": converted,
            "gateway": gateway,
            "monitoring": monitoring,
            "exporter": exporter,
            "driver": self.document.driver and {**self.document.driver, "count": expected},
            "gpus_expected": expected,
            "gpu_exporter": gpu_exporter,
            **container_toolkit.entry(this, self._gpus(this)),
            "disk": disk,
            **self._sources(),
            "drained": {name: asdict(mark) for name, mark in self.document.drained.items()},
            "warnings": list(self.problems.warnings),
        }

    def _sources(self) -> dict[str, Any]:
        """Where the bytes come from, the depot if one is among that, and what packages may be installed."""
        known = self.document.depot
        return {
            "sources": sources.entry(self.document.sources, known),
            "depot": known.entry() if known else None,
            "packages": sources.packages(self.document.lock, self.document.sources, known, self.document.facts.system),
        }

    # Hosts and addresses

    def _check_hosts(self) -> None:
        for host in self.document.hosts:
            if not host.address and self.document.incomplete:
                continue
            try:
                address = ipaddress.ip_address(host.address)
            except ValueError:
                self._address_problem(host, "it is not an IP address")
                continue
            shared = address.version == 4 and address in ipaddress.ip_network("100.64.0.0/10")
            if address.is_unspecified or address.is_multicast or not (address.is_private or shared):
                self._address_problem(host, "engines listen only on loopback or on a private address")

    def _address_problem(self, host: Host, why: str) -> None:
        where = f"redoubt_private_address of {host.name}"
        fix = "write the host's address on the private network, such as 10.0.0.11"
        self.problems.add(where, why, fix, host.address)

    def _reach(self, host: Host, port: int, what: str) -> str:
        """Return where this host reaches a port of another (or its own)."""
        loopback = host.address.startswith("127.") or host.address == "::1"
        if loopback and host.name != self.document.host:
            where = f"redoubt_private_address of {host.name}"
            why = f"{what} listens on {host.address} only, but the gateway or monitoring is another machine"
            self.problems.add(where, why, "set it in the host's variables, such as 10.0.0.11", host.address)
        return entries.endpoint(host.address, port)

    def _hosts(self, kind: str) -> list[Host]:
        return [host for host in self.document.hosts if kind in host.kinds]

    # Engines

    def _engines(self, host: Host) -> list[dict[str, Any]]:
        if not host.models and not self.document.incomplete:
            why = f"{host.name} serves models, but none is listed"
            self.problems.add("redoubt_models", why, "list at least one model")
        ports = self._ports(host, checked=True)
        known = self._gpus(host)
        if self.document.facts.gpu_rows:
            mig.check(host.mig, usable(self.document.facts.gpu_rows), self.problems)
        devices = gpus.assign(host.models, known, self.problems, later=self.document.facts_expected, layout=host.mig)
        planned = []
        for model in host.models:
            entry = self._engine(host, model, ports[model.where], devices.get(model.name, ()))
            if entry is not None:
                planned.append(entry)
        return planned

    def _gpus(self, host: Host) -> int | tuple[str, ...] | None:
        return host.gpus if host.gpus is not None else self.document.facts.gpus

    def _ports(self, host: Host, *, checked: bool = False) -> dict[str, int]:
        """Return each model's port by its place; where `checked`, duplicates of names and ports are noted."""
        ports = {model.where: model.port or FIRST_PORT + index for index, model in enumerate(host.models)}
        if not checked:
            return ports
        names: dict[str, str] = {}
        owners: dict[int, str] = {}
        for model in host.models:
            port = ports[model.where]
            if model.name in names:
                why = f"the name is already used by {names[model.name]}"
                self.problems.add(f"{model.where}.name", why, "give each model its own name", model.name)
            if port in RESERVED_PORTS:
                why = f"the port belongs to {RESERVED_PORTS[port]}"
                self.problems.add(f"{model.where}.port", why, "choose another port, such as 8101", port)
            elif port in owners:
                why = f"the port is already used by {owners[port]}"
                self.problems.add(f"{model.where}.port", why, "give each model its own port, or leave all out", port)
            names.setdefault(model.name, model.where)
            owners.setdefault(port, model.where)
        return ports

    def _engine(self, host: Host, model: Model, port: int, devices: tuple[str, ...]) -> dict[str, Any] | None:
        engine = ENGINES.get(model.engine)
        lock = self.artifacts.lock(model)
        if engine is None:
            names = ", ".join(sorted(ENGINES))
            why = "this engine is not yet in this release" if model.engine in NOT_YET else "there is no such engine"
            self.problems.add(f"{model.where}.engine", why, f"choose one of: {names}", model.engine)
            return None
        image = self.artifacts.image(model.image or engine.image, f"{model.where}.image" if model.image else None)
        if image is None:
            return None
        mount = f"/models/{model.name}"
        rendered = engine.render(Start(model, image, mount, devices), self.problems)
        if lock is None:
            return None
        facts.check_resources(model, self.document.facts, lock, MODELS_ROOT, self.problems, cpu=not devices)
        self.artifacts.weights.setdefault(lock.name, replace(lock, repo=lock.repo or model.repo))
        return {
            "name": model.name,
            "engine": model.engine,
            "container": f"redoubt-{model.name}",
            "image": {"ref": image.ref, "config_digest": image.config_digest},
            "address": host.address,
            "port": port,
            "command": rendered.command,
            "environment": rendered.environment,
            "weights": {
                "name": model.name,
                "revision": lock.revision,
                "path": f"{MODELS_ROOT}/{model.name}/{lock.revision[:12]}",
                "mount": mount,
            },
            "devices": list(devices),
            "resources": entries.resources(model, rendered),
            "health": rendered.health,
            "metrics_path": engine.metrics_path,
            "request_metrics": list(engine.request_metrics),
            "stop_grace_period": rendered.stop_grace_period,
        }

    def _conversions(self, host: Host, engines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if host.conversions and "inference" not in host.kinds:
            why = f"{host.name} serves no models, so it converts none"
            self.problems.add("redoubt_conversions", why, "write it for a host of the group inference")
            return []
        served = {engine["name"]: engine["devices"] for engine in engines}
        return conversions.plan(self.document, host, served, MODELS_ROOT, self.problems)

    # Gateway and monitoring: they need the other hosts' addresses

    def _gateway(self, host: Host) -> dict[str, Any]:
        models: dict[str, dict[str, Any]] = {}
        first_engine: dict[str, str] = {}
        for server in self._hosts("inference"):
            ports = self._ports(server)
            for model in server.models:
                engine = ENGINES.get(model.engine)
                if engine is None:
                    continue
                entry = models.setdefault(
                    model.name,
                    {
                        "name": model.name,
                        "context": model.context,
                        "servers": [],
                        "drained": [],
                        "routes": [dict(route) for route in engine.routes],
                    },
                )
                if first_engine.setdefault(model.name, model.engine) != model.engine:
                    why = f"another host serves this model with {first_engine[model.name]}"
                    fix = "serve a model with one engine"
                    self.problems.add(f"{model.where}.engine", why, fix, model.engine, server.name)
                reach = self._reach(server, ports[model.where], "its engine")
                drained = server.name in self.document.drained
                pools.place(entry, model, server.name, reach, drained, self.problems)
        pools.check(models, self.problems)
        if not models and not self.document.incomplete:
            why = f"{host.name} is a gateway, but no host serves a model"
            self.problems.add("redoubt_models", why, "add a host to the inference group and list a model")
        return {"models": list(models.values())}

    def _monitoring(self, host: Host) -> dict[str, Any]:
        wanted = [*MONITORING_IMAGES, *(["grafana"] if "grafana" in self.document.images else [])]
        images = {key: self.artifacts.image(key) for key in wanted}
        return {
            "images": {"grafana": None} | {key: image.ref if image else None for key, image in images.items()},
            "targets": watch.targets(self.document.hosts, self.document.images, self._reach, self._ports),
        }

    def _exporter(self, host: Host) -> dict[str, Any]:
        image = self.artifacts.image("node_exporter")
        return {"image": image.ref if image else None, "address": host.address, "port": watch.EXPORTER_PORT}

    def _gpu_exporter(self, host: Host) -> dict[str, Any] | None:
        seen = self.document.facts.gpus
        for warning in watch.gpu_warnings(host, self.document.images, seen):
            self.problems.warn(warning)
        if not watch.gpus_watched(host, self.document.images) or (host.gpus is None and seen == 0):
            return None
        image = self.artifacts.image(watch.GPU_IMAGE) if host.dcgm_method == "container" else None
        return {"image": image.ref if image else None, "address": host.address, "port": watch.GPU_PORT}
