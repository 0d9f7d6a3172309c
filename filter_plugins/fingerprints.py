# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filters of the playbooks verify and compare about fingerprints of hosts. Pure functions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.fingerprint.compare import differences, drift, report
from module_utils.fingerprint.document import Unreadable, parse

Document = dict[str, Any]


def fingerprint_findings(now: dict[str, Document], earlier: dict[str, str | None], pair: list[str]) -> list[str]:
    """What the playbook compare has to say, as lines; nothing when all is as it should be.

    `now` has the fingerprints just taken, by host; `earlier` the texts of those that `verify` left, null for none.
    With two names in `pair` these hosts are compared with each other, else each with its records and its earlier one.
    """
    if pair:
        return _pair(now, pair)
    lines: list[str] = []
    for host, document in sorted(now.items()):
        lines += [f"{host}: {line}" for line in report(drift(document), "recorded", "found")]
        text = earlier.get(host)
        if not text:
            continue
        try:
            before = parse(json.loads(text), f"the earlier fingerprint of {host}")
        except (Unreadable, ValueError) as error:
            lines.append(f"{host}: {error}")
            continue
        lines += [f"{host}: {line}" for line in report(differences(before, document), before["taken"], "now")]
    return lines


def _pair(now: dict[str, Document], pair: list[str]) -> list[str]:
    missing = [name for name in pair if name not in now]
    if len(pair) != 2 or missing:
        wrong = f"no fingerprint of {', '.join(missing)}" if missing else f"{len(pair)} names are given"
        return [
            f"compare_hosts = {','.join(pair)}: {wrong}. Fix: name two hosts of the inventory that answer:"
            " -e compare_hosts=A,B"
        ]
    left, right = pair
    return report(differences(now[left], now[right]), f"on {left}", f"on {right}")


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"fingerprint_findings": fingerprint_findings}
