"""Every query of the GPU dashboard finds data on a real Prometheus with stub exporters, with and without MIG."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import stub_dcgm
from tests.support import dashboards, promtool
from tests.support.ports import free_port

REPO = Path(__file__).parents[2]
BOARD = dashboards.load()["gpu"]
CARDS = {"plain": stub_dcgm.PLAIN, "mig": stub_dcgm.MIG}
PROFILING = {"Tensor cores", "Memory bus", "PCIe traffic"}
FACTS = """redoubt_gpu_expected 1
redoubt_gpu_visible 1
redoubt_gpu_fabric_ready 1
redoubt_gpu_driver_mismatch 0
"""


class StubExporter(BaseHTTPRequestHandler):
    """Stands for the exporters of a host: /PROFILING/HOST/gpu and /PROFILING/HOST/host."""

    def do_GET(self) -> None:
        """Answer with the metrics page."""
        profiling, name, job = self.path.strip("/").split("/")
        listed = stub_dcgm.counters(profiling=profiling == "all")
        looked = f"redoubt_gpu_looked_seconds {time.time():.0f}\n"
        text = stub_dcgm.exposition(listed, CARDS[name]) if job == "gpu" else FACTS + looked
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def exporters() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), StubExporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module", params=["all", "some"])
def watched(request: pytest.FixtureRequest, exporters: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """(which figures the exporters have, how to ask a Prometheus that has read them more than once)."""
    folder = tmp_path_factory.mktemp("prometheus")
    program = promtool.find(folder, "prometheus")
    if program is None:
        pytest.skip("no Prometheus here and no lab image yet; the molecule scenario dcgm runs these on its host")
    jobs = [
        {
            "job_name": job,
            "static_configs": [
                {"targets": [exporters], "labels": labels(name, f"/{request.param}/{name}/{job}")} for name in CARDS
            ],
        }
        for job in ("gpu", "host")
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(REPO / "roles/monitoring/files/rules/gpu.yml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        ask = dashboards.ask_directly(f"http://127.0.0.1:{port}")
        wait_until_read(ask, folder / "log")
        yield request.param, ask
    finally:
        process.terminate()
        process.wait(timeout=30)


def labels(host: str, path: str) -> dict[str, str]:
    # One server stands for all hosts, so each gets an instance of its own.
    return {"host": host, "instance": f"{host}:9400", "__metrics_path__": path}


def wait_until_read(ask: dashboards.Ask, log: Path) -> None:
    """Wait until each target was read several times and the rules were evaluated after that."""
    wanted = "count(count_over_time(up[5m]) > 4) == 4 and on () count(gpu:power_throttled:ratio5m) == 2"
    deadline = time.monotonic() + 60
    while True:
        try:
            if ask([wanted])[0]["data"]["result"]:
                return
        except (OSError, KeyError, json.JSONDecodeError):
            pass  # it is still starting
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.5)


@pytest.mark.parametrize("host", sorted(CARDS))
def test_every_query_finds_data(watched: Any, host: str) -> None:
    figures, ask = watched
    outcomes = dashboards.run([BOARD], ask, chosen={"host": host})
    # Without profiling a MIG instance has no figure of its own work.
    lacking = set() if figures == "all" else PROFILING | ({"Busy"} if host == "mig" else set())
    assert dashboards.problems(outcomes, may_be_empty=lacking) == []


@pytest.mark.parametrize("panel", sorted(PROFILING))
def test_profiling_is_what_those_panels_need(watched: Any, panel: str) -> None:
    figures, ask = watched
    found = [outcome.series for outcome in dashboards.run([BOARD], ask) if outcome.query.place == panel]
    assert all(found) == (figures == "all")


def test_instances_are_told_apart_where_they_have_figures_of_their_own(watched: Any) -> None:
    figures, ask = watched
    series = {
        outcome.query.place: outcome.series
        for outcome in dashboards.run([BOARD], ask, chosen={"host": "mig"})
        if outcome.query.place in ("Memory in use", "Power", "Busy")
    }
    assert series == {"Memory in use": 2, "Power": 1, "Busy": 2 if figures == "all" else 0}


def test_a_card_with_instances_counts_once(watched: Any) -> None:
    _, ask = watched
    (answer,) = ask(["host:gpus:count"])
    assert {row["metric"]["host"]: row["value"][1] for row in answer["data"]["result"]} == {"mig": "1", "plain": "1"}


def test_nothing_fires_on_healthy_cards(watched: Any) -> None:
    _, ask = watched
    (answer,) = ask(["ALERTS"])
    assert answer["data"]["result"] == []
