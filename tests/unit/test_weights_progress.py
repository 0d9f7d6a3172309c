"""How far a run is: what the module writes while it works, and what a plain ansible-playbook run shows of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts import progress as progress_module
from ansible.module_utils.artifacts import settling, staging
from ansible.module_utils.artifacts.blobs import Blobs
from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.progress import (
    FETCHING,
    PHASES,
    PROVING,
    PUBLISHING,
    RATE_SECONDS,
    Progress,
)
from ansible.module_utils.artifacts.store import Store

from action_plugins.weights import clock, line, size
from tests.support.fault_server import Asked, Fault, serving
from tests.support.image_archives import payload
from tests.support.local_play import start_play
from tests.support.tiny_model import Site
from tests.support.weight_trees import REVISIONS, digest, model

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


def phases_told(metrics: Path) -> list[str]:
    """The phases that the metric file names as those of now."""
    return re.findall(r'^redoubt_weights_phase{phase="(\w+)"} 1$', metrics.read_text(), re.MULTILINE)


def test_phase_is_told_at_once_in_file_and_metrics(tmp_path: Path) -> None:
    path, metrics = tmp_path / "p.json", tmp_path / "redoubt_weights.prom"
    progress = Progress(path, "weights", 100, lambda: 0.0, metrics, phase=PROVING)
    for phase in (PROVING, FETCHING, PUBLISHING, PROVING):
        progress.enter(phase)
        assert (json.loads(path.read_text())["phase"], phases_told(metrics)) == (phase, [phase])
    progress.finish()
    assert phases_told(metrics) == []
    assert metrics.read_text().count("redoubt_weights_phase{") == len(PHASES)


def test_run_goes_through_its_phases_and_a_failed_one_works_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a watcher would find while the module does this and that."""
    site, path, metrics = Site(tmp_path), tmp_path / "p.json", tmp_path / "redoubt_weights.prom"
    seen: list[tuple[str, str]] = []

    def spy(place: Any, name: str) -> None:
        work = getattr(place, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            seen.append((name, json.loads(path.read_text())["phase"]))
            assert phases_told(metrics) == [seen[-1][1]]
            return work(*arguments, **named)

        monkeypatch.setattr(place, name, watched)

    spy(staging, "_take_local")
    spy(staging, "fetch")
    spy(Blobs, "sync")
    spy(settling, "inspect")
    spy(Store, "publish")
    files: dict[str, Any] = {"progress_file": path, "metrics_file": metrics}
    site.bring(**files)
    before = [("_take_local", PROVING), ("fetch", FETCHING)]
    assert seen == [*before, *((name, PUBLISHING) for name in ("sync", "inspect", "publish"))]
    assert (json.loads(path.read_text())["finished"], phases_told(metrics)) == (True, [])
    (site.source / "tiny/shards/1.dat").write_bytes(b"?" * 100_000)
    (site.published / "shards/1.dat").unlink()
    site.store.blobs.path(digest(b"x" * 100_000)).unlink()
    with pytest.raises(Refusal):
        site.bring(**files)
    assert seen[-2:] == before
    assert (json.loads(path.read_text())["finished"], phases_told(metrics)) == (True, [])
    assert "redoubt_weights_running 0" in metrics.read_text()


def test_file_stays_fresh_while_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree of thousands of files is published, or a disk flushed, for longer than a watcher believes a file."""
    monkeypatch.setattr(progress_module, "BEAT", 0.01)
    beats = threading.Semaphore(0)
    now = [0.0]
    progress = Progress(tmp_path / "p.json", "weights", 100, lambda: now[0], phase=PROVING)
    tick = progress.tick

    def ticked() -> None:
        tick()
        beats.release()

    monkeypatch.setattr(progress, "tick", ticked)
    with pytest.raises(ZeroDivisionError), progress.beating():
        progress.enter(PUBLISHING)
        now[0] = 30.0
        assert beats.acquire(timeout=60)
        assert beats.acquire(timeout=60)  # one that began with the new time
        assert json.loads((tmp_path / "p.json").read_text())["seconds"] == 30
        raise ZeroDivisionError
    assert json.loads((tmp_path / "p.json").read_text())["finished"] is True


def test_line_says_phase_bytes_rate_and_time_left() -> None:
    document = {
        "phase": "fetching",
        "done_bytes": 1_500_000_000,
        "total_bytes": 140_000_000_000,
        "bytes_per_second": 812_000_000,
    }
    said = "1.5 GB of 140.0 GB, 812.0 MB/s"
    assert line({**document, "seconds_left": 4000, "item": "m/x"}) == f"fetching, {said}, 1:06:40 left (m/x)"
    assert line({**document, "seconds_left": None, "item": "m/x"}) == f"fetching, {said} (m/x)"
    # The depot has no phases; a run of before an upgrade knows nothing of them.
    assert line({**document, "phase": "", "seconds_left": None, "item": "m/x"}) == f"{said} (m/x)"
    del document["phase"]
    assert line({**document, "seconds_left": None, "item": "m/x"}) == f"{said} (m/x)"
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
    form = r"weights on h1: fetching, [\d.]+ k?B of 300.0 kB, [\d.]+ [kM]?B/s(, [\d:]+ left)? \((tiny/big.dat)?\)\n"
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
    assert not [name for name in values if "phase" in name]  # of work that has none
    assert len([line for line in lines if line.startswith("# TYPE ")]) == len(values)
    assert metrics.stat().st_mode & 0o777 == 0o644
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "metrics"], input=metrics.read_bytes(), check=True)
