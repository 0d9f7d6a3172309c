"""The compose template: what it must say for each engine, whatever an engine is called or told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.release_support import engine, render


def service(row: dict[str, Any], **variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render([row], **variables))["services"][row["container"]]
    return found


def test_an_engine_is_locked_in() -> None:
    found = service(engine())
    assert found["pull_policy"] == "never"
    assert found["restart"] == "unless-stopped"
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["cpus"] == 1.0
    assert found["mem_limit"] == found["memswap_limit"] == "1g"
    assert found["pids_limit"] == 8192
    assert found["stop_grace_period"] == "120s"
    assert found["dns"] == ["127.0.0.1"]
    assert found["ports"] == [
        {"target": 8000, "host_ip": "127.0.0.1", "published": "8101", "protocol": "tcp", "mode": "host"}
    ]
    bind = found["volumes"][0]
    assert bind["read_only"] is True
    assert bind["bind"] == {"create_host_path": False}
    assert "deploy" not in found
    assert "privileged" not in found
    assert "environment" not in found  # only by the 0600 file


def test_limits_may_be_left_out() -> None:
    found = service(engine(resources={"cpus": None, "memory": None, "shm_size": "1g"}))
    assert not {"cpus", "mem_limit", "memswap_limit"} & set(found)
    assert found["shm_size"] == "1g"


def test_networks_have_no_way_out() -> None:
    document = yaml.safe_load(render([engine()]))
    options = document["networks"]["engines"]["driver_opts"]
    assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert options["com.docker.network.bridge.enable_icc"] == "false"


def test_gpus_are_reserved_by_cdi() -> None:
    found = service(engine(devices=["GPU-1b2c", "1"]))
    assert found["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "cdi", "device_ids": ["nvidia.com/gpu=GPU-1b2c", "nvidia.com/gpu=1"], "capabilities": ["gpu"]}
    ]


def test_health_may_be_left_to_its_defaults() -> None:
    row = engine()
    del row["health"]
    found = service(row)["healthcheck"]
    assert "http://127.0.0.1:8000/health" in found["test"][1]
    assert found["start_period"] == "900s"


@settings(max_examples=40)
@given(words=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])), max_size=6))
def test_any_command_arrives_as_it_was_written(words: list[str]) -> None:
    found = service(engine(command=words))["command"]
    # Compose expands `$` and reads `$$` as one.
    assert [word.replace("$$", "$") for word in found] == words


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_scratch_paths(count: int) -> None:
    paths = [f"/scratch{i}" for i in range(count)]
    assert len(service(engine(), inference_scratch_paths=paths)["tmpfs"] or []) == count
