"""The plan as short lines for an operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.facts import size
from planner.sources import KINDS


def lines(plan: Mapping[str, Any]) -> list[str]:
    """Return the plan of one host as text: what it is, its engines, what it fetches, whom it watches, warnings."""
    result = [f"{plan['host']}: {', '.join(plan['kinds']) or 'no part in the service'}"]
    own = plan["drained"].get(plan["host"])
    if own:
        result.append(f"  {since(own)}: out of the pool, its engines are left as they are")
    rows: list[tuple[str, ...]] = [("model", "engine", "runs on", "address", "context", "weights", "limits")]
    rows += [_engine(engine, plan) for engine in plan["engines"]]
    if len(rows) > 1:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            result.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if plan["gateway"] is not None:
        for model in plan["gateway"]["models"]:
            drained = f"; drained: {', '.join(model['drained'])}" if model["drained"] else ""
            canary = model.get("canary")
            share = f"; {canary['percent']} % of the keys: {', '.join(canary['servers']) or 'nobody'}" if canary else ""
            result.append(f"  gateway: {model['name']} -> {', '.join(model['servers']) or 'nobody'}{share}{drained}")
        result += [f"  gateway: {name} is {since(mark)}" for name, mark in plan["drained"].items()]
    if plan["monitoring"] is not None:
        targets = plan["monitoring"]["targets"]
        counts = ", ".join(f"{len(targets[kind])} {kind}" for kind in ("engines", "hosts", "gateways"))
        if targets["gpus"]:
            counts += f", GPUs of {len(targets['gpus'])} hosts"
        grafana = "with Grafana" if plan["monitoring"]["images"]["grafana"] else "without Grafana"
        result.append(f"  monitoring: {counts}, {grafana}")
    if plan["driver"]:
        driver = plan["driver"]
        fabric = " with NVLink fabric" if driver["fabric"] else ""
        result.append(f"  driver: {driver['driver']} ({driver['flavour']}) for {len(driver['gpus'])} GPUs{fabric}")
    if plan.get("depot"):
        kinds = [kind for kind in KINDS if plan["sources"][kind] == "depot"]
        kinds += ["images"] if plan["sources"]["images_ca_file"] else []
        result.append(f"  depot: {', '.join(kinds)} from {plan['depot']['url']} (site {plan['depot']['site']})")
    for need in plan["disk"]:
        if need["needed_bytes"]:
            result.append(f"  disk: {need['path']} {size(need['needed_bytes'])} to write")
    result += [f"  warning: {warning}" for warning in plan["warnings"]]
    return result


def since(mark: Mapping[str, str]) -> str:
    """Return the mark of a drained host as words."""
    reason = f" ({mark['reason']})" if mark["reason"] else ""
    return f"drained since {mark['since']} by {mark['by']}{reason}"


def _engine(engine: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[str, ...]:
    devices = engine["devices"]
    command = engine["command"]
    context = command[command.index("--max-model-len") + 1] if "--max-model-len" in command else "model's own"
    weights = next((item["total_size"] for item in plan["weights"] if item["name"] == engine["name"]), 0)
    limits = [f"{engine['resources']['cpus']:g} cores" if engine["resources"]["cpus"] else "all cores"]
    limits.append(engine["resources"]["memory"] or "all memory")
    return (
        engine["name"],
        f"{engine['engine']} {engine['image']['ref'].rpartition(':')[2]}",
        f"GPU {','.join(devices)}" if devices else "CPU",
        f"{engine['address']}:{engine['port']}",
        context,
        size(weights),
        ", ".join(limits),
    )
