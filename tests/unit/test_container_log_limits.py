"""Which log configurations are limits."""

from __future__ import annotations

from typing import Any

import pytest

from library.container_log_limits import unlimited


def container(name: str, kind: str, options: dict[str, str] | None) -> dict[str, Any]:
    return {"Name": f"/{name}", "HostConfig": {"LogConfig": {"Type": kind, "Config": options}}}


@pytest.mark.parametrize("options", [None, {}, {"max-file": "3"}, {"max-size": ""}, {"max-size": "-1"}])
def test_json_file_without_size_is_named(options: dict[str, str] | None) -> None:
    rows = unlimited([container("a", "json-file", options)])
    assert [row["name"] for row in rows] == ["a"]


@pytest.mark.parametrize("kind", ["local", "journald", "none", "syslog"])
def test_drivers_that_limit_themselves(kind: str) -> None:
    assert unlimited([container("a", kind, {})]) == []


def test_only_offenders_in_order_of_name() -> None:
    containers = [
        container("c", "json-file", {}),
        container("b", "json-file", {"max-size": "10m"}),
        container("a", "json-file", {}),
    ]
    assert [row["name"] for row in unlimited(containers)] == ["a", "c"]
