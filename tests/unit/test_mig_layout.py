"""The module mig_layout: in which order it asks, frees, applies and starts again, with stubs of the host's programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from library import mig_layout
from module_utils.gpu.mig import User
from tests.unit.gpu_support import GpuHost

PARTS = [
    {"devices": [gpu], "mig-enabled": True, "mig-devices": {"1g.10gb": 7}}
    if gpu == 1
    else {"devices": [gpu], "mig-enabled": False}
    for gpu in range(8)
]
ENGINE = User("redoubt-small", True, frozenset({1}))
ITS_PROCESS = User("process 7 (VLLM::Worker)", False, frozenset({1}))
GUEST = User("guest", False, frozenset())
EXPORTER = User("exporter", False, frozenset())
ELSEWHERE = User("elsewhere", False, frozenset({2}))


class StubHost:
    """What the programs answer, and what they were asked."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[str] = []
        self.asserts = [1, 0]
        self.apply = 0
        self.applied: list[dict[str, Any]] = []
        self.users: list[list[User]] = [[], []]

    def run(self, command: list[str], _seconds: float) -> tuple[int, str]:
        words = [Path(word).name if word.startswith("/") else word for word in command]
        self.asked.append(" ".join(words))
        if command[1] == "assert":
            return self.asserts.pop(0), ""
        if command[1] == "apply":
            self.applied = json.loads(Path(command[3]).read_text())["mig-configs"]["redoubt"]
            return self.apply, "said by stub"
        return 0, ""

    def output(self, command: list[str], _seconds: int = 60) -> str:
        self.asked.append(" ".join(command))
        return ""

    def look(self, _gpus: list[dict[str, Any]]) -> list[User]:
        return self.users.pop(0)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubHost:
    stub = StubHost(GpuHost(tmp_path, "8xH100-SXM").with_driver().facts()["gpus"])
    monkeypatch.setattr(mig_layout, "run", stub.run)
    monkeypatch.setattr(mig_layout, "output", stub.output)
    monkeypatch.setattr(mig_layout, "users", stub.look)
    monkeypatch.setattr(mig_layout, "gather", lambda _host: {"gpus": stub.rows})
    return stub


def work(check: bool = False, **params: Any) -> dict[str, Any]:
    given = {
        "parts": PARTS,
        "drain": False,
        "services": ["nvidia-dcgm.service"],
        "containers": ["exporter"],
        "timeout": 9,
        **params,
    }
    found: dict[str, Any] = mig_layout.work(given, check)
    return found


ASSERT = "nvidia-mig-parted assert -f mig.json -c redoubt"
APPLY = "nvidia-mig-parted apply -f differing.json -c redoubt"
ACTIVE = "systemctl is-active --quiet nvidia-dcgm.service"
REFRESH = "systemctl restart nvidia-cdi-refresh.service"
STOP, START = "systemctl stop nvidia-dcgm.service", "systemctl start nvidia-dcgm.service"


def test_as_declared_nothing_is_done(host: StubHost) -> None:
    host.asserts = [0]
    assert work() == {"changed": False, "changed_gpus": [], "drained": []}
    assert host.asked == [ASSERT]


def test_order_of_a_change(host: StubHost) -> None:
    host.users = [[ELSEWHERE], [ELSEWHERE]]
    assert work() == {"changed": True, "changed_gpus": [1], "drained": []}
    assert host.asked == [ASSERT, ACTIVE, STOP, APPLY, ASSERT, REFRESH, START]
    # mig-parted first clears all that it is given, so it is not given what stays.
    assert host.applied == [PARTS[1]]


def test_where_one_gpu_resets_all_nobody_may_be_on_any(host: StubHost) -> None:
    host.rows = [{**gpu, "generation": "Ampere"} for gpu in host.rows]
    host.users = [[ELSEWHERE]]
    with pytest.raises(mig_layout.Refused, match=r"switching MIG on GPU 1 resets every GPU .* in use by elsewhere"):
        work(drain=True)
    assert host.asked == [ASSERT, ACTIVE]


def test_exporter_steps_aside(host: StubHost) -> None:
    host.users = [[EXPORTER], []]
    assert work()["drained"] == []
    assert host.asked == [
        ASSERT, ACTIVE, STOP, "docker stop exporter", APPLY, ASSERT, REFRESH, START, "docker start exporter",
    ]  # fmt: skip


def test_check_mode_only_asks(host: StubHost) -> None:
    assert work(check=True) == {"changed": True, "changed_gpus": [1], "drained": []}
    assert host.asked == [ASSERT]
    host.asserts = [127]
    assert work(check=True)["changed"]


def test_engine_and_its_processes_are_drained(host: StubHost) -> None:
    host.users = [[ENGINE, ITS_PROCESS], []]
    assert work(drain=True)["drained"] == ["redoubt-small"]
    assert host.asked[2:4] == ["docker stop -t 150 redoubt-small", STOP]


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (
            [ENGINE],
            "GPU 1 is in use by redoubt-small. Nothing was changed. Drain the host .* or set nvidia_mig_drain: true",
        ),
        ([ENGINE, ITS_PROCESS], "GPU 1 is in use by redoubt-small. Nothing was changed"),
        ([ITS_PROCESS], r"in use by process 7 \(VLLM::Worker\), and MIG cannot change under it"),
        ([ENGINE, GUEST], "in use by guest, and MIG cannot change under it. Nothing was changed"),
    ],
)
def test_busy_gpu_is_refused(host: StubHost, users: list[User], said: str) -> None:
    host.users = [users]
    with pytest.raises(mig_layout.Refused, match=said):
        work()
    assert host.asked == [ASSERT, ACTIVE]


def test_process_that_stays_is_refused_and_services_come_back(host: StubHost) -> None:
    host.users = [[ENGINE, ITS_PROCESS], [ITS_PROCESS]]
    with pytest.raises(mig_layout.Refused, match="still in use by process 7"):
        work(drain=True)
    assert APPLY not in host.asked
    assert host.asked[-1] == START


def test_failing_apply_is_told_and_services_come_back(host: StubHost) -> None:
    host.apply = 1
    with pytest.raises(mig_layout.Refused, match="apply ended with 1: said by stub"):
        work()
    assert host.asked[-1] == START


def test_layout_that_is_not_there_afterwards_is_told(host: StubHost) -> None:
    host.asserts = [1, 1]
    with pytest.raises(mig_layout.Refused, match="yet the GPUs are not as declared"):
        work()
    assert host.asked[-1] == START


def test_program_that_is_missing_is_named(host: StubHost) -> None:
    host.asserts = [127]
    with pytest.raises(mig_layout.Refused, match="nvidia-mig-parted is not installed"):
        work()
