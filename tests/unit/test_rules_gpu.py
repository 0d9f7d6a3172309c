"""The GPU rules ask for figures that the role dcgm exports, read the XID counters rightly, and know each XID once."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import stub_dcgm

REPO = Path(__file__).parents[2]
TEXT = (REPO / "roles/monitoring/files/rules/gpu.yml").read_text()
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]]
# The classes of the reference that the rules were written from.
LISTED = {13, 31, 43, 45, 48, 62, 63, 64, 69, 74, 79, 92, 94, 95, 119, 120, 137, 140, 143, *range(144, 151), 154, 155}
LISTED |= {167, 171, 172}
# A falling figure, and the number of the last XID: nothing that may be counted up over time.
MISREAD = re.compile(r"(increase|rate|irate|delta|deriv|resets|changes)\(\s*(DCGM_EXP_\w+|DCGM_FI_DEV_XID_ERRORS)")


def xids(expression: str) -> list[int]:
    found = re.search(r'xid=~?"([0-9|]+)"', expression)
    return [int(number) for number in found[1].split("|")] if found else []


def test_each_xid_has_one_class() -> None:
    classes = [xids(rule["expr"]) for rule in RULES if "alert" in rule]
    known = list(itertools.chain.from_iterable(classes))
    assert len(known) == len(set(known))
    assert set(known) == LISTED


def test_unlisted_xids_are_all_the_others() -> None:
    (unlisted,) = [rule["expr"] for rule in RULES if rule.get("alert") == "GpuXidUnlisted"]
    found = re.search(r'xid!~"([0-9|]+)"', unlisted)
    assert found
    assert {int(number) for number in found[1].split("|")} == LISTED


def test_the_table_of_the_operations_guide_names_the_same_xids() -> None:
    guide = (REPO / "docs/operations.md").read_text()
    rows = dict(re.findall(r"^\| `(GpuXid\w+)` \| ([0-9 ]+) \|", guide, re.MULTILINE))
    told = {name: [int(number) for number in numbers.split()] for name, numbers in rows.items()}
    ruled = {rule["alert"]: xids(rule["expr"]) for rule in RULES if "alert" in rule and xids(rule["expr"])}
    assert told == ruled


def test_xid_counters_are_not_counted_up() -> None:
    assert not [rule for rule in RULES if MISREAD.search(rule["expr"])]


@pytest.mark.parametrize(
    "expression", ["increase(DCGM_FI_DEV_XID_ERRORS[5m]) > 0", "rate( DCGM_EXP_XID_ERRORS_COUNT[5m])"]
)
def test_the_misreading_would_be_seen(expression: str) -> None:
    assert MISREAD.search(expression)


def test_every_figure_is_exported_by_the_role() -> None:
    exported = {counter.field for counter in stub_dcgm.counters(profiling=False)}
    used = {
        name for rule in RULES for name in re.findall(r"\bDCGM_[A-Z0-9_]+\b", rule["expr"]) if not name.endswith("_")
    }
    assert len(used) > 10
    assert used <= exported


def test_hosts_are_told_by_the_target_not_by_the_exporter() -> None:
    assert not [rule for rule in RULES if re.search("hostname", rule["expr"], re.IGNORECASE)]
