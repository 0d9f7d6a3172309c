"""Filters of the roles monitoring and node_exporter: alert rules, gateway probes, addresses. Pure functions."""

from __future__ import annotations

import copy
import difflib
import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleFilterError

HEADER = "# Ansible managed\n"
OVERRIDES: dict[str, type] = {"enabled": bool, "for": str, "severity": str, "expr": str}
SEVERITIES = ("critical", "warning", "none")
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def private_address(address: str) -> bool:
    """Whether an IP address is loopback or private and names one interface (0.0.0.0 and host names are not)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # Python counts 100.64.0.0/10 (carrier-grade NAT, used by overlay networks) as neither private nor global.
    return not parsed.is_unspecified and not parsed.is_global and not parsed.is_multicast


def host_port(address: str, port: int) -> str:
    """`address:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def gateway_probes(gateways: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What blackbox exporter shall ask for each gateway of the plan.

    In: `[{target: "https://name/healthz", labels: {}, address: "10.0.0.2" (optional, what is really connected to)}]`.
    Out: `[{instance, url, hostname, tcp, labels}]`: `hostname` is sent as SNI and Host, `tcp` is host:port.
    """
    probes = []
    for gateway in gateways:
        parts = urlsplit(str(gateway["target"]))
        connect = host_port(str(gateway.get("address") or parts.hostname or "").strip("[]"), parts.port or 443)
        probes.append(
            {
                "instance": gateway["target"],
                "url": f"https://{connect}{parts.path or '/'}",
                "hostname": parts.hostname,
                "tcp": connect,
                "labels": dict(gateway.get("labels") or {}),
            }
        )
    return probes


def rule_files(
    texts: Mapping[str, str],
    overrides: Mapping[str, Mapping[str, Any]],
    extra_groups: Sequence[Mapping[str, Any]],
    expected_targets: Mapping[str, int],
) -> dict[str, str]:
    """Rule files by name, as YAML text: the shipped ones with the operator's changes, `extra.yml` and `targets.yml`.

    `overrides` maps an alert's name to any of enabled, for, severity, expr; `expected_targets` a job to its number of
    targets. Raises AnsibleFilterError that lists every mistake in the overrides.
    """
    problems = override_problems(overrides, texts)
    if problems:
        raise AnsibleFilterError("; ".join(problems))
    documents = {name: yaml.safe_load(text) for name, text in texts.items()}
    result = {name: _dump(_overridden(document, overrides)) for name, document in documents.items()}
    expected = [
        {"record": "redoubt:targets:expected", "expr": f"vector({count})", "labels": {"job": job}}
        for job, count in sorted(expected_targets.items())
    ]
    result["targets.yml"] = _dump({"groups": [{"name": "targets", "rules": expected}]})
    result["extra.yml"] = _dump({"groups": [dict(group) for group in extra_groups]})
    return result


def override_problems(overrides: Mapping[str, Mapping[str, Any]], texts: Mapping[str, str]) -> list[str]:
    """Everything that is wrong with `monitoring_alert_overrides`, given the shipped rule files; one line each."""
    groups = [group for text in texts.values() for group in yaml.safe_load(text)["groups"]]
    alerts = sorted(rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule)
    problems = []
    for name, changes in overrides.items():
        where = f"monitoring_alert_overrides.{name}"
        if not isinstance(changes, Mapping):
            problems.append(f"{where} is {changes!r}; write for example {{for: 5m}}")
            continue
        if name not in alerts:
            near = difflib.get_close_matches(name, alerts, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(alerts)}"
            problems.append(f"{where}: there is no such alert; {hint}")
            continue
        for key, value in changes.items():
            kind = OVERRIDES.get(key)
            if kind is None:
                problems.append(f"{where}.{key}: unknown; an alert takes {', '.join(OVERRIDES)}")
            elif not isinstance(value, kind):
                problems.append(f"{where}.{key} is {value!r}; it must be of type {kind.__name__}")
            elif key == "for" and not DURATION.fullmatch(str(value)):
                problems.append(f"{where}.for is {value!r}; write a duration such as 30s, 5m or 1h")
            elif key == "severity" and value not in SEVERITIES:
                problems.append(f"{where}.severity is {value!r}; use one of {', '.join(SEVERITIES)}")
    return problems


def _overridden(document: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = copy.deepcopy(dict(document))
    for group in result["groups"]:
        rules = []
        for rule in group["rules"]:
            changes = overrides.get(rule.get("alert", ""), {})
            if not changes.get("enabled", True):
                continue
            rule.update({key: changes[key] for key in ("for", "expr") if key in changes})
            if "severity" in changes:
                rule["labels"] = {**rule["labels"], "severity": changes["severity"]}
            rules.append(rule)
        group["rules"] = rules
    return result


def _dump(document: Mapping[str, Any]) -> str:
    # Ansible's values carry tags that YAML's writer does not know; JSON leaves them behind.
    plain = json.loads(json.dumps(document))
    return HEADER + yaml.safe_dump(plain, sort_keys=False, width=110, allow_unicode=True)


def files_in(
    texts: Mapping[str, str], directory: str, attributes: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Texts by file name as entries of config_set's `files`, each with the same `attributes` (mode, owner, group)."""
    return [{"path": f"{directory}/{name}", "content": text, **(attributes or {})} for name, text in texts.items()]


def expected_targets(targets: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """How many targets each scrape job has, from `monitoring_targets`."""
    gateways = len(targets.get("gateways") or [])
    counts = {
        "engine": len(targets.get("engines") or []),
        "host": len(targets.get("hosts") or []),
        "gpu": len(targets.get("gpus") or []),
        "gateway": gateways,
        "gateway_tcp": gateways,
        "prometheus": 1,
        "alertmanager": 1,
        "blackbox": 1,
    }
    return {job: count for job, count in counts.items() if count}


def alertmanager_config(
    receivers: Sequence[Mapping[str, Any]],
    route: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    """Alertmanager's configuration as YAML text.

    `route` is merged over a root route to the first receiver (`none`, which shows alerts and sends nothing, when there
    is no receiver); `options` are its `global` settings. Alerts of severity none are not sent, unless a route of the
    operator's takes them first.
    """
    first = receivers[0]["name"] if receivers else "none"
    root = {
        "receiver": first,
        "group_by": ["alertname", "host", "model"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        **route,
    }
    root["routes"] = [*(route.get("routes") or []), {"matchers": ['severity="none"'], "receiver": "none"}]
    config = {
        "global": {"resolve_timeout": "5m", **options},
        "route": root,
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="EngineDown"'],
                "target_matchers": ['alertname=~"Engine.+"', 'severity="warning"'],
                "equal": ["model", "host"],
            },
            {
                "source_matchers": ['alertname="GatewayCertificateExpired"'],
                "target_matchers": ['alertname="GatewayCertificateExpiring"'],
                "equal": ["instance"],
            },
        ],
        "receivers": [{"name": "none"}, *[dict(receiver) for receiver in receivers]],
    }
    return _dump(config)


def settings_problems(
    ports: Mapping[str, int],
    receivers: Sequence[Mapping[str, Any]],
    secret_names: Sequence[str],
    gateways: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Refusals of the role's variables, one line each, all at once. `ports` maps variables to their values."""
    problems = []
    by_port: dict[int, list[str]] = {}
    for name, port in ports.items():
        by_port.setdefault(port, []).append(name)
        if not 1 <= port <= 65535:
            problems.append(f"{name} is {port}; a port is a number from 1 to 65535")
    problems += [
        f"{' and '.join(names)} are both {port}; give each its own port"
        for port, names in by_port.items()
        if len(names) > 1
    ]
    names = [str(receiver.get("name", "")) for receiver in receivers]
    for index, name in enumerate(names):
        if not name or name == "none" or names.index(name) != index:
            problems.append(
                f"monitoring_alert_receivers[{index}].name is {name!r}; each receiver needs a name of its own,"
                " and none is the role's receiver that sends nothing"
            )
    problems += [
        f"monitoring_alert_secrets: {name!r} cannot be a file name; use letters, digits, '.', '_' and '-'"
        for name in secret_names
        if not FILE_NAME.fullmatch(name)
    ]
    for gateway in gateways:
        parts = urlsplit(str(gateway["target"]))
        if parts.scheme != "https" or not parts.hostname:
            problems.append(
                f"monitoring_targets.gateways: {gateway['target']!r} is no https URL such as https://llm.example.org/healthz"
            )
    return problems


class FilterModule:
    """Filters for templates and tasks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name and function of each filter."""
        return {
            "monitoring_alertmanager_config": alertmanager_config,
            "monitoring_expected_targets": expected_targets,
            "monitoring_files": files_in,
            "monitoring_gateway_probes": gateway_probes,
            "monitoring_host_port": host_port,
            "monitoring_override_problems": override_problems,
            "monitoring_private_address": private_address,
            "monitoring_rule_files": rule_files,
            "monitoring_settings_problems": settings_problems,
        }
