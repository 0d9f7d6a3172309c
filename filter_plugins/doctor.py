# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's pure parts: which checks a host needs, and what the answers mean together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from planner import gateway_checks, gpu_checks, weights_checks
from planner.table import since

Check = dict[str, Any]
Document = dict[str, Any]

# Paths of engines that must never be reachable from outside (vLLM's, see its own security documentation).
CLOSED_PATHS = (
    "/metrics",
    "/invocations",
    "/docs",
    "/v1/load_lora_adapter",
    "/openapi.json",
    "/tokenize",
)


def doctor_engine_checks(engine: Document) -> list[Check]:
    """The checks of one engine of a plan: its container is as the lock says, and it completes a prompt."""
    name = engine["name"]
    at = f"{engine['address']}:{engine['port']}"
    return [
        {
            "id": f"engine.{name}.container",
            "kind": "container",
            "container": engine["container"],
            "config_digest": engine["image"]["config_digest"],
            "addresses": [at],
            "remedy": f"Read 'docker logs {engine['container']}', then run the serve playbook again.",
        },
        {
            "id": f"engine.{name}.completion",
            "kind": "completion",
            "url": f"http://{at}/v1/completions",
            "model": name,
            "remedy": f"The engine does not generate: read 'docker logs {engine['container']}'.",
        },
    ]


def _monitoring_checks(url: str, drained: list[str]) -> list[Check]:
    return [
        {
            "id": "monitoring.targets",
            "kind": "targets",
            "url": url,
            "drained": drained,
            "remedy": "The target named does not answer Prometheus: look at its service and its port.",
        },
        {
            "id": "monitoring.rules",
            "kind": "rules",
            "url": url,
            "remedy": "Run the monitoring playbook again; it checks the rules before it installs them.",
        },
    ]


def doctor_inside_checks(plan: Document, settings: Document) -> list[Check]:
    """The checks to be made on one host, from its plan.

    `settings`: {deep: bool, min_free_percent: number, prometheus_url: str, certificate: str, firewall: bool,
    jwks: [names of issuers whose keys are fetched], secret_patterns: [glob]}.
    Raises KeyError when the plan lacks a part that its `kinds` promise.
    """
    manifests = {row["name"]: row for row in plan["weights"]}
    checks: list[Check] = []
    drained = plan.get("drained") or {}
    own = drained.get(plan.get("host"))
    if own:
        checks.append({"id": "host.drained", "kind": "told", "detail": f"{since(own)}; its engines were not examined"})
    for engine in plan["engines"]:
        checks += [] if own else doctor_engine_checks(engine)
        checks.append(weights_checks.model(engine, manifests, deep=settings["deep"]))
    if plan.get("gpu_stack"):
        checks += gpu_checks.checks(plan)
    if plan["engines"]:
        checks += [
            weights_checks.proofs(),
            {
                "id": "release.current",
                "kind": "release",
                "path": "/opt/redoubt/current",
                "remedy": "Run the serve playbook; it writes a release and moves the link.",
            },
        ]
    if plan.get("gateway"):
        checks += [
            {
                "id": "unit.nginx",
                "kind": "unit",
                "unit": "nginx.service",
                "remedy": "Run 'nginx -t' on the host, then the gateway playbook.",
            },
            {
                "id": "gateway.certificate",
                "kind": "certificate",
                "path": settings["certificate"],
                "min_days": 14,
                "remedy": "Run the gateway playbook (private CA), or give a new certificate (files).",
            },
            *gateway_checks.audit(),
            *gateway_checks.fetched_keys(settings.get("jwks", [])),
            *gateway_checks.pools(),
        ]
    if plan.get("monitoring"):
        checks += _monitoring_checks(settings["prometheus_url"], sorted(drained))
    if plan.get("driver"):
        # One reading of the GPUs gives several answers: gpu.driver, gpu.gpus, gpu.fabric and so on.
        checks.append({"id": "gpu", "kind": "gpu", "expected": plan["driver"]})
    if plan.get("gpus_expected"):
        checks.append(gpu_checks.figures(plan))
    if settings.get("firewall"):
        checks.append(
            {
                "id": "firewall.rules",
                "kind": "firewall",
                "program": "/usr/local/lib/redoubt/firewall",
                "remedy": "Run the firewall playbook: it loads the rules again and proves that SSH comes in.",
            }
        )
    return checks + _host_checks(settings)


def _host_checks(settings: Document) -> list[Check]:
    return [
        {
            "id": "unit.docker",
            "kind": "unit",
            "unit": "docker.service",
            "remedy": "Read 'journalctl -u docker', then run the host playbook.",
        },
        {
            "id": "logs.limits",
            "kind": "log_limits",
            "remedy": "Recreate the container: log limits hold only for containers made after they were set.",
        },
        {
            "id": "config.drift",
            "kind": "drift",
            "state_dir": "/var/lib/redoubt/config_sets",
            "remedy": "Run the playbook of that part: it puts the file back and proves the service.",
        },
        {
            "id": "secrets.modes",
            "kind": "secrets",
            "patterns": settings["secret_patterns"],
            "remedy": "chmod 0600 the files, and change the secrets if others had access.",
        },
        *(
            {
                "id": f"disk.{path}",
                "kind": "disk",
                "path": path,
                "min_free_percent": settings["min_free_percent"],
                "remedy": f"Free space on {path}: old releases, images and model revisions go first.",
            }
            for path in ("/", "/var/lib/docker", "/srv/redoubt")
        ),
    ]


# Prometheus, Alertmanager and the blackbox exporter, which the monitoring role keeps on loopback.
MONITORING_PORTS = (9090, 9093, 9115)


def _loopback_ports(plan: Document) -> list[int]:
    """Ports that only the host itself may reach."""
    listeners = [*plan["engines"], *(plan[key] for key in ("exporter", "gpu_exporter") if plan.get(key))]
    ports = [row["port"] for row in listeners if row["address"].startswith("127.")]
    return sorted({*ports, *(MONITORING_PORTS if plan.get("monitoring") else ())})


def doctor_outside_checks(plan: Document, settings: Document) -> list[Check]:
    """The checks to be made from the control host against one gateway, as a client would see it.

    `settings`: {url, server_name, connect_to, port, ca, page (is there one at /), closed_addresses: [host:port]}.
    The key is not in here.
    """
    gateway = plan.get("gateway")
    if not gateway or not gateway["models"]:
        return []
    served = [model["name"] for model in gateway["models"] if model["servers"]]
    base = {key: settings[key] for key in ("url", "server_name", "connect_to", "ca")}
    anonymous = {**base, "kind": "status", "paths": ["/v1/models"], "status": 401}
    checks: list[Check] = [
        {
            **base,
            "id": "gateway.key",
            "kind": "status",
            "paths": ["/v1/models"],
            "status": 200,
            "remedy": "Check that this machine's address is in gateway_allowed_cidrs and that the key is current.",
        },
        {
            **anonymous,
            "id": "gateway.no_key",
            "anonymous": True,
            "remedy": "The gateway lets requests without a key in. Run the gateway playbook now.",
        },
        {
            **anonymous,
            "id": "gateway.wrong_key",
            "present_key": "sk-this-key-was-never-issued-0000000000000000",
            "remedy": "The gateway takes a key that was never issued. Run the gateway playbook now.",
        },
        {
            **base,
            "id": "gateway.closed_routes",
            "kind": "status",
            "paths": [*CLOSED_PATHS, *([] if settings["page"] else ["/"])],
            "status": 404,
            "remedy": "A route outside the plan is open. Run the gateway playbook now.",
        },
        {
            **base,
            "id": "gateway.stream",
            "kind": "stream",
            "model": (served or [gateway["models"][0]["name"]])[0],
            "remedy": "Compare with the engine's own completion check; read the gateway's access log.",
        },
        {
            "id": "gateway.tls_versions",
            "kind": "tls_versions",
            "address": f"{settings['connect_to']}:{settings['port']}",
            "server_name": settings["server_name"],
            "remedy": "Set gateway_tls_profile to intermediate or modern and run the gateway playbook.",
        },
    ]
    if settings["page"]:
        checks.append(
            {
                **base,
                "id": "gateway.page",
                "kind": "status",
                "paths": ["/"],
                "status": 200,
                "anonymous": True,
                "remedy": "People do not get their page. Run the gateway playbook, or set gateway_page to false.",
            }
        )
    closed = [f"{settings['connect_to']}:{port}" for port in _loopback_ports(plan)] + settings["closed_addresses"]
    if closed:
        checks.append(
            {
                "id": "ports.closed",
                "kind": "closed",
                "addresses": closed,
                "remedy": "A private port answers from outside: bind it to loopback and close it in the firewall.",
            }
        )
    return checks


def doctor_verdict(answers: list[Document], host: str) -> Document:
    """One host's verdict `{host, ok, checks}`; without any check it is not ok."""
    return {"host": host, "ok": bool(answers) and all(a["ok"] for a in answers), "checks": answers}


def doctor_site_verdict(verdicts: dict[str, Document | None], expected: list[str]) -> Document:
    """The site's verdict `{ok, hosts: {name: verdict}}`. An expected host without a verdict is not ok."""
    hosts: dict[str, Document] = {}
    for name in expected:
        missing = {
            "id": "host.reached",
            "ok": False,
            "detail": f"{name} gave no verdict in this run",
            "remedy": f"Look why {name} could not be reached or stopped earlier in this run.",
        }
        hosts[name] = verdicts.get(name) or doctor_verdict([missing], name)
    return {"ok": bool(hosts) and all(h["ok"] for h in hosts.values()), "hosts": hosts}


def doctor_table(site: Document) -> list[str]:
    """The verdict as lines for people: failures in full, good checks one line each."""
    lines: list[str] = []
    for name, verdict in site["hosts"].items():
        good = sum(1 for c in verdict["checks"] if c["ok"])
        lines.append(
            f"{'OK     ' if verdict['ok'] else 'NOT OK '} {name}: {good} of {len(verdict['checks'])} checks are good"
        )
        for check in verdict["checks"]:
            lines.append(f"  {'ok    ' if check['ok'] else 'NOT OK'} {check['id']}: {check['detail']}")
            if not check["ok"]:
                lines.append(f"         -> {check['remedy']}")
    lines.append(f"verdict: {'ok' if site['ok'] else 'NOT OK'}")
    return lines


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Names as used in templates."""
        return {
            "doctor_engine_checks": doctor_engine_checks,
            "doctor_inside_checks": doctor_inside_checks,
            "doctor_outside_checks": doctor_outside_checks,
            "doctor_site_verdict": doctor_site_verdict,
            "doctor_table": doctor_table,
            "doctor_verdict": doctor_verdict,
        }
