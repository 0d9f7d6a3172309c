"""The role dcgm: what its container may do, what its list of counters says, what it refuses; and when it is planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from filter_plugins import dcgm
from filter_plugins.doctor import doctor_outside_checks
from lab import stub_dcgm
from planner import plan
from planner.table import lines
from planner.watch import dcgm_problems
from tests.support.plan_documents import document, host, images, model

ROLE = Path(__file__).parents[2] / "roles/dcgm"
SETTINGS = {"dcgm_method": "container", "dcgm_exporter_image": "example/dcgm_exporter:1.0.0", "dcgm_interval": 15}
GPU = ("inference", "gateway", "monitoring")


def service(**variables: Any) -> dict[str, Any]:
    """The container's part of the Compose file, with the role's defaults."""
    environment = SandboxedEnvironment(trim_blocks=True, undefined=StrictUndefined)
    environment.filters["to_json"] = json.dumps
    environment.filters["hash"] = lambda text, _kind: f"hash of {len(text)}"
    values = {
        **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
        "ansible_managed": "",
        "__dcgm_options": ["--address=127.0.0.1:9400"],
        "__dcgm_counters": "a list",
        "dcgm_exporter_image": "example/dcgm_exporter:1.0.0",
    }
    text = environment.from_string((ROLE / "templates/compose.yml.j2").read_text()).render({**values, **variables})
    found: dict[str, Any] = yaml.safe_load(text)["services"]["dcgm-exporter"]
    return found


def test_the_container_is_locked_in() -> None:
    found = service()
    assert found["pull_policy"] == "never"
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["cap_add"] == ["SYS_ADMIN"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["mem_limit"] == "512m"
    assert found["cpus"] == 1.0
    assert found["pids_limit"] == 512
    assert found["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "privileged" not in found
    assert "ports" not in found
    assert found["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"], "capabilities": ["gpu"]}
    ]


def test_nothing_lies_over_what_cdi_mounts() -> None:
    """Docker mounts a tmpfs after CDI's mounts, such as the sockets of the driver's services below /run."""
    paths = [entry.partition(":")[0] for entry in service()["tmpfs"]]
    assert [path for path in paths if path.startswith(("/run", "/var/run", "/usr", "/dev", "/etc"))] == []


def test_without_profiling_there_is_no_capability() -> None:
    assert "cap_add" not in service(dcgm_profiling=False)


def test_other_counters_make_another_container() -> None:
    assert service()["labels"] != service(__dcgm_counters="a longer list")["labels"]


def test_each_counter_is_listed_once() -> None:
    fields = [counter.field for counter in stub_dcgm.counters(profiling=True)]
    assert len(fields) == len(set(fields))
    assert {"DCGM_EXP_XID_ERRORS_COUNT", "DCGM_EXP_CLOCK_EVENTS_COUNT", "DCGM_EXP_GPU_HEALTH_STATUS"} <= set(fields)


def test_profiling_counters_can_be_left_out() -> None:
    assert [c for c in stub_dcgm.counters(profiling=True) if c.field.startswith("DCGM_FI_PROF_")]
    assert not [c for c in stub_dcgm.counters(profiling=False) if c.field.startswith("DCGM_FI_PROF_")]


def test_good_settings_have_no_problems() -> None:
    assert dcgm.dcgm_problems(SETTINGS) == []
    assert dcgm.dcgm_problems({"dcgm_method": "none"}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dcgm_exporter_image": ""}, ["dcgm_exporter_image", "add dcgm_exporter to redoubt_images"]),
        ({"dcgm_method": "package"}, ["dcgm_package_version", "apt-cache policy"]),
        ({"dcgm_method": "package", "dcgm_package_version": "1:4.6.0-1"}, ["dcgm_exporter_package_version"]),
        ({"dcgm_interval": 0}, ["dcgm_interval", "1 to 60"]),
        ({"dcgm_extra_counters": [{"field": "FAN", "type": "gauge", "help": "x"}]}, ["counters[0]", "'FAN'"]),
        (
            {"dcgm_extra_counters": [{"field": "DCGM_FI_DEV_FAN_SPEED", "type": "gauge", "help": "a, b"}]},
            ["counters[0]", "commas"],
        ),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    (problem, *_) = dcgm.dcgm_problems({**SETTINGS, **changes})
    assert all(word in problem for word in words)
    assert ": " in problem
    assert " - " in problem


@pytest.mark.parametrize("line", ["DCGM_FI_DEV_GPU_TEMP, gauge", "DCGM_FI_DEV_GPU_TEMP, gauge, hot, very"])
def test_the_stub_refuses_lines_that_the_exporter_refuses(line: str) -> None:
    with pytest.raises(ValueError, match="field, type, help"):
        stub_dcgm.parse(line)


def gpu_host(**fields: Any) -> dict[str, Any]:
    return host(model(gpus=1), kinds=GPU, gateway={"server_name": "llm.example.org", "https_port": 443}, **fields)


def made(*more: str, facts: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The plan of one host that does everything, with one GPU for its model."""
    return plan(document({"h1": gpu_host(**fields)}, images=images(*more), facts=facts))


def test_a_gpu_host_is_watched_where_the_lock_has_the_exporter() -> None:
    planned = made("dcgm_exporter")
    assert planned["gpu_exporter"] == {"image": "example/dcgm_exporter:1.0.0", "address": "127.0.0.1", "port": 9400}
    assert planned["monitoring"]["targets"]["gpus"] == [{"target": "127.0.0.1:9400", "labels": {"host": "h1"}}]
    assert "dcgm_exporter" in {image["key"] for image in planned["images"]}
    assert any("GPUs of 1 hosts" in line for line in lines(planned))


def test_without_its_image_nobody_watches_and_the_plan_says_so() -> None:
    planned = made()
    assert planned["gpu_exporter"] is None
    assert planned["monitoring"]["targets"]["gpus"] == []
    assert any("the GPUs of h1 are not watched" in warning for warning in planned["warnings"])


def test_packages_need_no_image() -> None:
    planned = made("dcgm_exporter", dcgm_method="package")
    assert planned["gpu_exporter"] == {"image": None, "address": "127.0.0.1", "port": 9400}
    assert "dcgm_exporter" not in {image["key"] for image in planned["images"]}


def test_none_means_none_without_a_word() -> None:
    planned = made("dcgm_exporter", dcgm_method="none")
    assert planned["gpu_exporter"] is None
    assert planned["monitoring"]["targets"]["gpus"] == []
    assert not any("GPU" in warning for warning in planned["warnings"])


@pytest.mark.parametrize("gpus", [0, 8, None])
def test_the_inventorys_word_on_gpus_counts(gpus: int | None) -> None:
    described = host(model(gpus=0), kinds=GPU, gateway={"server_name": "llm.example.org", "https_port": 443}, gpus=gpus)
    planned = plan(document({"h1": described}, images=images("dcgm_exporter")))
    assert (planned["gpu_exporter"] is not None) == (gpus == 8)
    assert bool(planned["monitoring"]["targets"]["gpus"]) == (gpus == 8)


def test_a_host_that_turns_out_to_have_no_gpu_gets_no_exporter() -> None:
    described = host(model(gpus="auto"), kinds=("inference",))
    planned = plan(document({"h1": described}, images=images("dcgm_exporter"), facts={"gpus": 0}))
    assert planned["gpu_exporter"] is None
    assert any("set preflight_gpus: 0" in warning for warning in planned["warnings"])


def test_monitoring_reaches_other_hosts_on_their_private_address() -> None:
    hosts = {
        "mon": host(kinds=("monitoring",), address="10.0.0.9"),
        "gpu": host(model(gpus=1), kinds=("inference",), address="10.0.0.1"),
        "cpu": host(model("other"), kinds=("inference",), address="10.0.0.2"),
    }
    planned = plan(document(hosts, "mon", images=images("dcgm_exporter")))
    assert planned["monitoring"]["targets"]["gpus"] == [{"target": "10.0.0.1:9400", "labels": {"host": "gpu"}}]
    assert planned["gpu_exporter"] is None


def test_the_doctor_looks_at_the_port_from_outside() -> None:
    planned = made("dcgm_exporter")
    settings: dict[str, Any] = {
        "url": "https://llm.example.org",
        "server_name": "llm.example.org",
        "connect_to": "192.0.2.1",
        "port": 443,
        "ca": "",
        "page": True,
        "closed_addresses": [],
    }
    (closed,) = [check for check in doctor_outside_checks(planned, settings) if check["id"] == "ports.closed"]
    assert "192.0.2.1:9400" in closed["addresses"]


@pytest.mark.parametrize(
    ("driver_version", "method", "package_version", "refused"),
    [
        ("4.6.0", "package", "1:4.5.3-1", True),
        ("4.6.0", "package", "1:4.6.0-1", False),
        ("4.6.0", "package", "4.6.0", False),
        ("", "package", "1:4.5.3-1", False),
        ("4.6.0", "container", "1:4.5.3-1", False),
        ("4.6.0", "package", "", False),  # the role refuses that itself
        ("4.6.0", None, None, False),
    ],
)
def test_two_roles_cannot_want_two_versions(
    driver_version: str, method: str | None, package_version: str | None, refused: bool
) -> None:
    found = dcgm_problems(driver_version, method, package_version)
    assert [problem.where for problem in found] == ["dcgm_package_version"] * refused
