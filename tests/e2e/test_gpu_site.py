"""The whole site on one server with eight H100, as inventories/single has it: GPUs, driver and engine are stubs.

The stub engine gets the plan's real arguments from a real release, and starts only where it sees all the GPUs that
these name. The tests run in this order on one host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from cli.play import run_playbook
from lab import hosts
from tests.support import dashboards
from tests.support.gpu_variables import DRIVER, GPUS
from tests.support.prometheus import PROMETHEUS, until
from tests.support.site import FINGERPRINT, MODEL, REPOSITORY, Site

ENGINE = f"redoubt-{MODEL}"
ROLES = ("nvidia_driver", "nvidia_container_toolkit", "nvidia_mig", "cuda_toolkit", "dcgm")
#: What the GPUs may cost a run that has nothing to change.
MOST_TASKS = 35


def includes() -> dict[str, str]:
    """The roles for GPUs by the names of the tasks that call them."""
    items = [item for path in (REPOSITORY / "playbooks").rglob("*.yml") for item in yaml.safe_load(path.read_text())]
    tasks: list[dict[str, Any]] = [task for item in items for task in item.get("tasks", [item])]
    called = {task["name"]: task.get("ansible.builtin.include_role", {}).get("name", "") for task in tasks}
    return {name: role for name, role in called.items() if role in ROLES}


def test_check_mode_succeeds_on_an_empty_host_and_changes_nothing(gpu_site: Site) -> None:
    before = gpu_site.on(gpu_site.main, FINGERPRINT)
    run = gpu_site.play("site.yml", "--check", "--diff")
    assert run.status == 0, run.output[-6000:]
    for role in ("nvidia_driver", "nvidia_container_toolkit", "dcgm"):
        assert f"TASK [{role} : " in run.output
    assert run.recap()[gpu_site.main]["changed"] > 15, "a check that foresees no change on an empty host saw nothing"
    assert gpu_site.on(gpu_site.main, FINGERPRINT) == before


def test_the_whole_run_succeeds(gpu_site: Site) -> None:
    run = gpu_site.play("site.yml")
    assert run.status == 0, run.output[-6000:]
    assert gpu_site.on(gpu_site.main, "cat /sys/module/nvidia/version").strip() == DRIVER
    assert "Paris" in "".join(gpu_site.stream("What is the capital of France?"))


def test_the_engine_sees_all_gpus(gpu_site: Site) -> None:
    listed = gpu_site.on(gpu_site.main, f"docker exec {ENGINE} nvidia-smi -L").splitlines()
    assert listed == gpu_site.on(gpu_site.main, "nvidia-smi -L").splitlines()
    assert len(listed) == GPUS
    words = gpu_site.on(gpu_site.main, f"docker inspect --format '{{{{json .Config.Cmd}}}}' {ENGINE}")
    assert f'"--tensor-parallel-size","{GPUS}"' in words


def test_the_stub_engine_would_not_start_with_seven(gpu_site: Site) -> None:
    devices = " ".join(f"--device nvidia.com/gpu={number}" for number in range(GPUS - 1))
    image = gpu_site.on(gpu_site.main, f"docker inspect --format '{{{{.Image}}}}' {ENGINE}").strip()
    words = f"/models --port 8000 --served-model-name x --tensor-parallel-size {GPUS}"
    said = gpu_site.on(gpu_site.main, f"docker run --rm --network none {devices} {image} {words} 2>&1 || true")
    assert said.strip() == f"stub engine: {GPUS} GPUs wanted, 7 device nodes here, 7 in nvidia-smi -L"


def test_the_second_run_changes_nothing_and_gpus_cost_few_tasks(gpu_site: Site) -> None:
    run = run_playbook("site", [str(gpu_site.folder / "hosts.json")])
    assert run.ok, run.failures
    counts = run.counts[gpu_site.main]
    assert counts.changed == 0, [task.name for task in run.tasks if task.changed]
    calls = includes()
    assert set(calls.values()) == set(ROLES)
    tasks = [task for task in run.tasks if task.name in calls or task.name.split(": ")[0] in ROLES]
    number = sum(len(task.done) for task in tasks)
    print(f"dispatched: {counts.dispatched}, for the GPUs {number}")
    assert 2 * len(ROLES) < number <= MOST_TASKS, [task.name for task in tasks]


def test_check_mode_on_the_finished_host_foresees_nothing(gpu_site: Site) -> None:
    run = gpu_site.play("site.yml", "--check")
    assert run.status == 0, run.output[-6000:]
    assert run.recap()[gpu_site.main]["changed"] == 0


def examine(site: Site) -> None:
    """The doctor finds all well, and looked at the GPUs."""
    run = site.play("playbooks/verify.yml")
    assert run.status == 0, run.output[-6000:]
    checks = {check["id"]: check["detail"] for check in site.verdict()["hosts"][site.main]["checks"]}
    assert {"gpu.driver", "gpu.fabric", "gpu.persistence", "gpus.cdi", "gpus.toolkit"} <= checks.keys()
    assert "firewall.rules" in checks
    assert checks["gpu.gpus"] == f"{GPUS} of {GPUS} GPUs can be used"


def test_the_doctor_says_ok(gpu_site: Site) -> None:
    examine(gpu_site)


def test_prometheus_watches_all_gpus(gpu_site: Site) -> None:
    def value(expression: str) -> list[str]:
        found = gpu_site.fetch(f"{PROMETHEUS}/api/v1/query?query={quote(expression)}")["data"]["result"]
        return [row["value"][1] for row in found]

    assert until(lambda: value("host:gpus:count") == [str(GPUS)], 60)
    assert until(lambda: value("sum(up)") == value("sum(redoubt:targets:expected)"), 60)
    ask = dashboards.ask_remotely(PROMETHEUS, lambda command: gpu_site.on(gpu_site.main, command))
    board = dashboards.load()["gpu"]
    assert until(lambda: dashboards.problems(dashboards.run([board], ask)) == [], 120)
    assert value('ALERTS{alertname=~"Gpu.*"}') == []


@pytest.fixture
def sealed(gpu_site: Site) -> Iterator[None]:
    """The host without a way out."""
    hosts.seal(gpu_site.main)
    yield
    hosts.unseal(gpu_site.main)


@pytest.mark.usefixtures("sealed")
def test_a_restart_without_a_network_brings_everything_back(gpu_site: Site) -> None:
    hosts.restart(gpu_site.main)
    healthy = f"docker inspect --format '{{{{.State.Health.Status}}}}' {ENGINE}"
    assert until(lambda: gpu_site.on(gpu_site.main, healthy).strip() == "healthy", 60)
    examine(gpu_site)
    assert len(gpu_site.on(gpu_site.main, f"docker exec {ENGINE} nvidia-smi -L").splitlines()) == GPUS
