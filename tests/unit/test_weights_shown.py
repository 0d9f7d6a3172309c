"""When and where the operator sees how far the weights are: every five seconds, for each host, under `play` too."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from action_plugins import weights
from cli import play as play_module
from cli.play import run_playbook
from cli.runs import run_folder
from tests.support.fault_server import Asked, Fault, serving
from tests.support.image_archives import payload
from tests.support.weight_trees import REVISIONS, model

LINE = re.compile(
    r"weights on (h\d): fetching, [\d.]+ k?B of 300\.0 kB, [\d.]+ [kM]?B/s(, [\d:]+ left)? \(tiny/big\.dat\)"
)


class Clock:
    """Time that passes only where somebody waits or looks; also the event of the module's end."""

    def __init__(self, looks: list[float]) -> None:
        self.now, self.looks, self.shown = 0.0, list(looks), [0.0]

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return not self.looks

    def look(self, command: str, sudoable: bool) -> tuple[int, bytes, bytes]:
        """Answer as a host would whose connection takes its time."""
        self.now += self.looks.pop(0)
        figures = {"done_bytes": 1, "total_bytes": 2, "bytes_per_second": 1, "item": "m/x", "phase": "fetching"}
        return 0, b"100\n" + json.dumps({**figures, "updated": 100}).encode(), b""

    def display(self, text: str) -> None:
        self.shown.append(self.now)


@pytest.mark.parametrize("looks", [[0.0] * 5, [0.9] * 5, [0.0, 1.0, 0.0, 1.0, 0.3], [4.5, 4.5, 4.5]])
def test_lines_are_at_most_five_seconds_apart_however_long_a_look_takes(
    monkeypatch: pytest.MonkeyPatch, looks: list[float]
) -> None:
    clock = Clock(looks)
    monkeypatch.setattr(weights, "Display", lambda: clock)
    monkeypatch.setattr(weights.ActionModule, "clock", staticmethod(lambda: clock.now))
    action = object.__new__(weights.ActionModule)
    action._task = SimpleNamespace(args={})
    action._connection = SimpleNamespace(exec_command=clock.look)
    action._watch("h1", clock)  # type: ignore[arg-type]  # waits as an Event does
    assert len(clock.shown) == 1 + len(looks)
    gaps = [after - before for before, after in zip(clock.shown, clock.shown[1:], strict=False)]
    # The first line cannot come before the first look has ended.
    assert max(gaps[1:] if looks[0] > 1 else gaps) <= 5


class Screen(io.StringIO):
    """Keeps what a person sees, and calls once every host had its line."""

    def __init__(self, hosts: set[str], all_told: Callable[[], None]) -> None:
        super().__init__()
        self.hosts, self.told, self.all_told = hosts, set[str](), all_told

    def write(self, text: str) -> int:
        count = super().write(text)
        self.told = {found[1] for found in LINE.finditer(self.getvalue())}
        if self.told == self.hosts:
            self.all_told()
        return count


def test_each_host_has_its_line_under_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server holds the last bytes back until each of two hosts has said how far it is."""
    monkeypatch.setattr(play_module, "run_folder", lambda name: run_folder(name, tmp_path / "runs"))
    data, all_told = payload(300_000, 1), threading.Event()

    def rule(asked: Asked) -> Fault | None:
        return None if all_told.is_set() else Fault(stall_after=200_000)

    with serving({"/tiny/big.dat": data}) as server:
        server.rule = rule
        places = {
            "directory": str(tmp_path / "{{ inventory_hostname }}/models"),
            "state_dir": str(tmp_path / "{{ inventory_hostname }}/state"),
            "progress_file": str(tmp_path / "{{ inventory_hostname }}/progress.json"),
        }
        task = {"models": [model({"big.dat": data})], "source": server.base, "timeout": 20, "retries": 2, **places}
        play = {"hosts": "all", "gather_facts": False, "tasks": [{"name": "Bring", "weights": task}]}
        (tmp_path / "bring.yml").write_text(yaml.safe_dump([play]))

        def release() -> None:
            all_told.set()
            server.released.set()

        screen = Screen({"h1", "h2"}, release)
        local = ["-c", "local", "-e", "ansible_become=false", "-e", f"ansible_python_interpreter={sys.executable}"]
        console = Console(file=screen, force_terminal=False, markup=False, highlight=False, width=200)
        result = run_playbook(str(tmp_path / "bring.yml"), "h1,h2,", local, console)
    assert result.ok, screen.getvalue()
    assert screen.told == {"h1", "h2"}, screen.getvalue()
    for host in ("h1", "h2"):
        assert (tmp_path / host / "models/tiny" / REVISIONS[0][:12] / "big.dat").read_bytes() == data
