# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Which host gets another driver, in which order, and what an operator is told: the judgements of the playbook
upgrade_driver. Pure functions.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from filter_plugins.drain import drain_checks, drain_endpoints, drain_refusals
from module_utils.gpu.ready import verdicts
from planner.table import since

Document = dict[str, Any]
# The reason in the mark of a host that this playbook drained: by it a later run knows that it may return the host, and
# what it had at first.
_REASON = re.compile(r"driver (?P<old>\S+) -> (?P<new>\S+)")
NOTHING = "none"


def upgrade_problems(version: str, wanted: str, chosen: list[str], pattern: str, drain_host: str) -> list[str]:
    """What is wrong with the words on the command line, one line each.

    `version`, `pattern` (upgrade_hosts) and `drain_host` as given there, empty if not; `wanted` is the
    nvidia_driver_version that holds for this run; `chosen` the hosts of the pattern that serve models.
    """
    if not version:
        return ["version is not set. Fix: -e version=595.71.05, the whole version that the hosts shall have"]
    found = []
    if chosen and wanted != version:
        found.append(
            f"nvidia_driver_version = {wanted} is given on the command line, and version = {version}."
            " Fix: give version alone"
        )
    if drain_host:
        found.append(
            f"drain_host = {drain_host}: this playbook drains its hosts itself. Fix: -e upgrade_hosts={drain_host}"
        )
    if not chosen:
        found.append(
            f"upgrade_hosts = {pattern!r}: no host of the group inference fits. Fix: name one, or a pattern of Ansible"
        )
    return found


def upgrade_away(chosen: list[str], gateways: list[str], reached: list[str]) -> list[str]:
    """One line for each host that must take part and does not; `reached` are the hosts of the run that answer."""
    return [
        f"{name} does not answer or is outside --limit. Fix: bring it back"
        + (f", or leave it out: -e 'upgrade_hosts=inference:!{name}'" if name in chosen else "")
        + "; run without --limit, since every gateway takes part"
        for name in dict.fromkeys([*gateways, *chosen])
        if name not in reached
    ]


def upgrade_turn(plan: Document, gpu: Document, version: str, marks: Document) -> Document:
    """What is to be done on a host: {needed, why, step, old, pooled, back, reason}.

    `plan` is made for the wanted version; `gpu` is redoubt_gpu; `marks` the drained hosts as the host and all gateways
    know them. `old` is what to go back to; `pooled` and `back`: whether the host is in the pool now and will be at the
    end; `reason` goes into its mark.
    """
    mark = marks.get(plan["host"])
    ours = _REASON.fullmatch(mark["reason"]) if mark else None
    driver = gpu.get("driver") or {}
    now = driver.get("loaded") or driver.get("installed") or NOTHING
    old = ours["old"] if ours else now
    turn = {"needed": False, "old": old, "pooled": not mark, "back": bool(ours) or not mark}
    turn |= {"step": f"driver {now} -> {version}", "reason": f"driver {old} -> {version}"}
    if not plan["driver"]:
        return turn | {"why": "left alone: it has no NVIDIA GPU, or nvidia_driver_manage is false"}
    versions = [driver["loaded"], driver["installed"], driver["library"], gpu["fabric_manager"] or driver["loaded"]]
    if any(one != version for one in versions) or driver["nouveau"]:
        stays = f"; it is {since(mark)} and stays so" if mark and not ours else ""
        return turn | {"needed": True, "why": f"{now} -> {version}{stays}"}
    if ours:
        return turn | {"needed": True, "why": f"has {version}, and is to be proved and returned"}
    bad = [f"{row.aspect}: {row.detail}" for row in verdicts(gpu, plan["driver"]) if not row.ok]
    return turn | {"why": f"has {version} already{', but ' if bad else ''}{'; '.join(bad)}"}


def upgrade_checks(models: list[Document], engines: dict[str, list[Document]]) -> list[Document]:
    """Checks for the doctor: does each endpoint of the models answer that one of these hosts serves?"""
    return drain_checks(models, [engine for own in engines.values() for engine in own], set())


def upgrade_turns(hosts: list[str], hostvars: Document) -> dict[str, Document]:
    """The turns to be taken, in order: hosts that an earlier run left drained, then as the inventory lists them."""
    turns = {host: hostvars[host]["upgrade_turn"] for host in hosts}
    order = sorted(hosts, key=lambda host: turns[host]["pooled"] or not turns[host]["back"])
    return {host: turns[host] for host in order if turns[host]["needed"]}


def upgrade_engines(turns: dict[str, Document], hostvars: Document, *, pooled: bool) -> dict[str, list[Document]]:
    """The engines of the hosts that are in the pool; or of those that are not, and return in this run."""
    chosen = [host for host, turn in turns.items() if turn["back"] and turn["pooled"] is pooled]
    return {host: hostvars[host]["deployment_plan"]["engines"] for host in chosen}


def upgrade_refusals(
    answers: list[Document], engines: dict[str, list[Document]], returning: dict[str, list[Document]]
) -> list[str]:
    """One line for each model that would be left without an endpoint while one of the hosts is drained.

    `returning`: engines that are back before, or the run ends.
    """
    back = {engine["name"] for own in returning.values() for engine in own}
    lines = []
    for host, own in engines.items():
        leaving = set(drain_endpoints(own))
        rest = [answer for answer in answers if answer["id"].rpartition(" ")[2] not in leaving]
        lines += drain_refusals(rest, [engine for engine in own if engine["name"] not in back], host)
    return lines


def upgrade_command(version: str, hosts: str, inventories: list[str]) -> str:
    """The command that gives these hosts this version."""
    sources = " ".join(f"-i {shlex.quote(str(one))}" for one in inventories)
    pattern = f" -e upgrade_hosts={shlex.quote(hosts)}" if hosts else ""
    return f"./redoubt play upgrade_driver {sources} -e version={version}{pattern}"


def upgrade_ways(turn: Document, host: str, version: str, pattern: str, inventories: list[str]) -> list[str]:
    """How to go on with a run that ended on this host, and how to go back."""
    lines = [f"To go on: {upgrade_command(version, pattern, inventories)}"]
    if turn["old"] not in (NOTHING, version):
        lines.append(f"To go back: {upgrade_command(turn['old'], host, inventories)}")
    return lines


def upgrade_failure(result: Document, task: str, host: str, turns: dict[str, Document], done: list[str]) -> list[str]:
    """What failed and how the hosts are now. `turns`: the hosts that were to be done, in order."""
    message = result.get("msg") or result.get("reason") or "no message"
    text = "\n".join(map(str, message)) if isinstance(message, list) else str(message)
    rest = [name for name in turns if name not in (*done, host)]
    return [
        f"{host}: {turns[host]['step']} failed at '{task}': {text}",
        f"{host} is drained and gets no requests. Done before: {_names(done)}. Not touched: {_names(rest)}.",
    ]


def upgrade_known(hosts: list[str], hostvars: Document) -> dict[str, str]:
    """The version that the inventory has for each of the hosts whose driver is ours."""
    return {
        host: str(hostvars[host]["upgrade_known_version"])
        for host in hosts
        if hostvars[host]["deployment_plan"]["driver"]
    }


def upgrade_notes(versions: dict[str, str], version: str, folder: str) -> list[str]:
    """What must be written into the inventory for the hosts that have the version now.

    `versions`: host -> nvidia_driver_version of the inventory, empty where it is not set.
    """
    stale: dict[str, list[str]] = {}
    for host, known in versions.items():
        if known != version:
            stale.setdefault(known, []).append(host)
    return [
        f"Now set nvidia_driver_version: {version} for {', '.join(hosts)} in {folder} (group_vars/ or host_vars/),"
        f" where it is {known or 'not set'}: else the next run of another playbook wants the other version again."
        for known, hosts in stale.items()
    ]


def _names(hosts: list[str]) -> str:
    return ", ".join(hosts) or "none"


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Names as used in templates."""
        return {
            "upgrade_away": upgrade_away,
            "upgrade_checks": upgrade_checks,
            "upgrade_engines": upgrade_engines,
            "upgrade_failure": upgrade_failure,
            "upgrade_known": upgrade_known,
            "upgrade_notes": upgrade_notes,
            "upgrade_problems": upgrade_problems,
            "upgrade_refusals": upgrade_refusals,
            "upgrade_turn": upgrade_turn,
            "upgrade_turns": upgrade_turns,
            "upgrade_ways": upgrade_ways,
        }
