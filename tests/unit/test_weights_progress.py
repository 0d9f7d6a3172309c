"""How far a run is: what the module writes while it works, and what a plain ansible-playbook run shows of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.progress import RATE_SECONDS, Progress

from action_plugins.weights import clock, line, size
from tests.support.fault_server import Asked, Fault, serving
from tests.support.image_archives import payload
from tests.support.local_play import start_play
from tests.support.weight_trees import REVISIONS, model

REPOSITORY = Path(__file__).resolve().parents[2]


def test_rate_is_that_of_the_last_seconds_and_gives_the_time_left(tmp_path: Path) -> None:
    now = [0.0]
    progress = Progress(tmp_path / "p.json", "weights", 10_000, lambda: now[0])
    progress.add(0, "a")
    now[0] = 1.0
    progress.add(1000, "a")
    first = json.loads((tmp_path / "p.json").read_text())
    assert (first["bytes_per_second"], first["seconds_left"], first["done_bytes"]) == (1000, 9, 1000)
    for second in range(2, 40):  # then it crawls
        now[0] = float(second)
        progress.add(10, "b")
    last = json.loads((tmp_path / "p.json").read_text())
    assert last["bytes_per_second"] == pytest.approx(10, abs=10 / RATE_SECONDS + 1)
    assert last["seconds_left"] > 500
    assert (last["item"], last["finished"]) == ("b", False)


def test_progress_goes_on_while_nothing_comes(tmp_path: Path) -> None:
    now = [0.0]
    progress = Progress(tmp_path / "p.json", "weights", 100, lambda: now[0])
    progress.finish()
    assert not (tmp_path / "p.json").exists()  # a run with nothing to do writes nothing
    progress.add(50, "a")
    now[0] = 30.0
    progress.tick()
    stalled = json.loads((tmp_path / "p.json").read_text())
    assert (stalled["done_bytes"], stalled["bytes_per_second"], stalled["seconds_left"]) == (50, 0, None)
    progress.finish()
    assert json.loads((tmp_path / "p.json").read_text())["finished"] is True


def test_line_says_bytes_rate_and_time_left() -> None:
    document = {"done_bytes": 1_500_000_000, "total_bytes": 140_000_000_000, "bytes_per_second": 812_000_000}
    assert (
        line({**document, "seconds_left": 4000, "item": "m/x"}) == "1.5 GB of 140.0 GB, 812.0 MB/s, 1:06:40 left (m/x)"
    )
    assert line({**document, "seconds_left": None, "item": "m/x"}) == "1.5 GB of 140.0 GB, 812.0 MB/s (m/x)"
    assert size(999) == "999 B"
    assert clock(59) == "0:59"


def test_plain_playbook_run_shows_progress_while_bytes_arrive(tmp_path: Path) -> None:
    """The server holds the last byte back until the run has said how far it is."""
    data = payload(300_000, 1)
    wanted = model({"big.dat": data})
    said = threading.Event()

    def rule(asked: Asked) -> Fault | None:
        return None if said.is_set() else Fault(stall_after=200_000)

    task = {
        "name": "Bring",
        "weights": {
            "models": [wanted],
            "source": "SOURCE",
            "directory": str(tmp_path / "models"),
            "state_dir": str(tmp_path / "state"),
            "progress_file": str(tmp_path / "progress.json"),
            "timeout": 20,
        },
    }
    with serving({"/tiny/big.dat": data}) as server:
        server.rule = rule
        task["weights"]["source"] = server.base  # type: ignore[index]  # a mapping, see above
        process = start_play(tmp_path, [task])
        assert process.stdout is not None
        output = []
        for text in process.stdout:
            output.append(text)
            if text.startswith("weights on h1: "):
                said.set()
                server.released.set()
        assert process.wait() == 0, "".join(output)
    shown = [text for text in output if text.startswith("weights on h1: ")]
    form = r"weights on h1: [\d.]+ k?B of 300.0 kB, [\d.]+ [kM]?B/s(, [\d:]+ left)? \((tiny/big.dat)?\)\n"
    assert all(re.fullmatch(form, text) for text in shown), shown
    assert (tmp_path / "models/tiny" / REVISIONS[0][:12] / "big.dat").read_bytes() == data


def test_prometheus_gets_the_same_figures_where_somebody_reads_them(tmp_path: Path) -> None:
    metrics = tmp_path / "textfile/redoubt_weights.prom"
    progress = Progress(tmp_path / "p.json", "weights", 100, lambda: 0.0, metrics)
    progress.add(40, "a")
    assert not metrics.exists()
    metrics.parent.mkdir()
    progress.add(60, "a")
    progress.finish()
    lines = metrics.read_text().splitlines()
    values = dict(line.split(" ") for line in lines if not line.startswith("#"))
    assert values["redoubt_weights_done_bytes"] == values["redoubt_weights_total_bytes"] == "100"
    assert values["redoubt_weights_running"] == "0"
    assert len([line for line in lines if line.startswith("# TYPE ")]) == len(values)
    assert metrics.stat().st_mode & 0o777 == 0o644
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "metrics"], input=metrics.read_bytes(), check=True)
