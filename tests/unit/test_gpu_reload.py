"""The module gpu_reload: what it stops, in which order, and what it says where the kernel keeps the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from library import gpu_reload
from module_utils.gpu.aside import holders

UNITS = ["nvidia-persistenced.service", "nvidia-dcgm.service", "nvsm.service"]


class StubHost:
    """What the programs answer, and what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, str]] = {
            "systemctl is-active --quiet nvsm.service": (3, ""),
            "docker ps --format {{.Names}}": (0, "redoubt-dcgm-exporter\nother"),
        }

    def run(self, command: list[str], _seconds: float) -> tuple[int, str]:
        self.asked.append(" ".join(command))
        return self.answers.get(" ".join(command), (0, ""))

    @property
    def did(self) -> list[str]:
        """What was not only looking."""
        return [line for line in self.asked if "is-active" not in line and "docker ps" not in line]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubHost:
    stub = StubHost()
    for name in ("nvidia", "nvidia_uvm", "nvidia_modeset"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(gpu_reload, "run", stub.run)
    monkeypatch.setattr(gpu_reload, "MODULES_FOLDER", str(tmp_path))
    monkeypatch.setattr(gpu_reload, "holders", lambda: ["process 7 (Xorg)"])
    return stub


def exchange(check: bool = False) -> tuple[bool, str]:
    found: tuple[bool, str] = gpu_reload.exchange(UNITS, ["redoubt-dcgm-exporter", "gone"], check)
    return found


def test_what_runs_steps_aside_and_comes_back_to_a_fresh_specification(host: StubHost) -> None:
    assert exchange() == (True, "")
    assert host.did == [
        "systemctl stop nvidia-persistenced.service nvidia-dcgm.service",
        "docker stop redoubt-dcgm-exporter",
        "modprobe -r nvidia_uvm nvidia_modeset nvidia",
        "modprobe --all nvidia nvidia_modeset nvidia_uvm",
        "systemctl restart nvidia-cdi-refresh.service",
        "systemctl start nvidia-persistenced.service",
        "systemctl start nvidia-dcgm.service",
        "docker start redoubt-dcgm-exporter",
    ]


def test_a_driver_in_use_stays_and_the_user_is_named(host: StubHost) -> None:
    host.answers["modprobe -r nvidia_uvm nvidia_modeset nvidia"] = (1, "modprobe: FATAL: Module nvidia is in use.")
    changed, why_not = exchange()
    assert changed
    assert why_not == "modprobe: FATAL: Module nvidia is in use. GPUs are open in process 7 (Xorg)"
    assert "modprobe --all nvidia nvidia_modeset nvidia_uvm" in host.did, "what was unloaded comes back"
    assert "systemctl start nvidia-dcgm.service" in host.did


def test_nothing_is_stopped_under_an_engine(host: StubHost) -> None:
    host.answers["docker ps --filter label=redoubt.engine --format {{.Names}}"] = (0, "redoubt-small")
    assert exchange() == (False, "redoubt-small run here: drain the host first")
    assert host.did == []


def test_a_service_that_does_not_stop_keeps_the_driver(host: StubHost) -> None:
    host.answers["systemctl stop nvidia-persistenced.service nvidia-dcgm.service"] = (1, "Job failed")
    assert exchange() == (
        True,
        "'systemctl stop nvidia-persistenced.service nvidia-dcgm.service' ended with 1: Job failed",
    )
    assert not any("modprobe" in line for line in host.did)
    assert "systemctl start nvidia-persistenced.service" in host.did


def test_an_installed_driver_that_does_not_load_is_a_failure(host: StubHost) -> None:
    host.answers["modprobe --all nvidia nvidia_modeset nvidia_uvm"] = (1, "Key was rejected by service")
    with pytest.raises(gpu_reload.Failed, match="Key was rejected by service"):
        exchange()


def test_nothing_is_done_in_check_mode_or_without_a_driver(host: StubHost, tmp_path: Path) -> None:
    assert exchange(check=True) == (True, "")
    for folder in tmp_path.iterdir():
        folder.rmdir()
    assert exchange() == (False, "")
    assert host.asked == []


def test_holders_are_found_by_their_open_nodes(tmp_path: Path) -> None:
    for number, name, target in (
        (12, "Xorg", "/dev/nvidia0"),
        (7, "sshd", "/dev/null"),
        (3, "old", "/dev/nvidiactl (deleted)"),
    ):
        (tmp_path / str(number) / "fd").mkdir(parents=True)
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
        (tmp_path / str(number) / "fd/3").symlink_to(target)
    (tmp_path / "self").mkdir()
    assert holders(str(tmp_path)) == ["process 3 (old)", "process 12 (Xorg)"]
