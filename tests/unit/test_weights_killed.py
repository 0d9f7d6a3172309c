"""The module weights as Ansible runs it, and what is left when its process is killed at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.sources import Folder

from tests.support.fault_server import serving
from tests.support.image_archives import payload
from tests.support.weight_trees import REVISIONS, model, write_tree

REPOSITORY = Path(__file__).resolve().parents[2]


def bring(root: Path, document: dict[str, Any]) -> Any:
    """Publish one model, as the module does."""
    store = Store(root / "models", root / "state")
    return present(store, parse_models([document]), [Folder(root / "source")], Settings())


def test_nobody_who_looks_all_the_time_ever_sees_a_part(tmp_path: Path) -> None:
    files = {f"part-{number}": payload(4 << 20, number) for number in range(6)}
    write_tree(tmp_path / "source/tiny", files)
    published = tmp_path / "models/tiny" / REVISIONS[0][:12]
    child = multiprocessing.get_context("fork").Process(target=bring, args=(tmp_path, model(files)))
    child.start()
    looks = 0
    while child.is_alive():
        looks += 1
        try:
            seen = {item.name: item.stat().st_size for item in os.scandir(published)}
        except FileNotFoundError:
            continue
        assert seen == {name: len(data) for name, data in files.items()}
    assert child.exitcode == 0
    assert looks > 50
    assert published.is_dir()


def test_killed_at_any_moment_nothing_half_is_visible_and_the_next_run_converges(tmp_path: Path) -> None:
    files = {f"part-{number}": payload(4 << 20, number) for number in range(6)}
    document = model(files)
    write_tree(tmp_path / "source/tiny", files)
    published = tmp_path / "models/tiny" / REVISIONS[0][:12]
    fork = multiprocessing.get_context("fork")

    start = time.monotonic()
    bring(tmp_path, document)
    whole = time.monotonic() - start
    subprocess.run(["chmod", "-R", "u+w", tmp_path / "models"], check=True)
    subprocess.run(["rm", "-r", tmp_path / "models", tmp_path / "state"], check=True)

    killed = 0
    for step in range(16):
        child = fork.Process(target=bring, args=(tmp_path, document))
        child.start()
        child.join(whole * (step + 1) / 14)
        if child.is_alive() and child.pid:
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.join()
        if published.exists():
            assert {path.name: path.read_bytes() for path in published.iterdir()} == files
    assert killed >= 3
    bring(tmp_path, document)
    assert {path.name: path.read_bytes() for path in published.iterdir()} == files
    changed, _ = bring(tmp_path, document)
    assert changed is False


def run(tmp_path: Path, *options: str, **arguments: Any) -> dict[str, Any]:
    """Run the module once on the local machine through Ansible; returns its result."""
    arguments = {
        "directory": str(tmp_path / "models"),
        "state_dir": str(tmp_path / "state"),
        "progress_file": str(tmp_path / "progress.json"),
        **arguments,
    }
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-e", "ansible_become=false"]
    command += ["-m", "weights", "-a", json.dumps(arguments), *options]
    environment = {
        **os.environ,
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
    }
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    document = json.loads(done.stdout[done.stdout.index("{") :])
    result: dict[str, Any] = document["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return result


def test_module_brings_verifies_and_removes(tmp_path: Path) -> None:
    files = {"config.json": b"{}"}
    write_tree(tmp_path / "source/tiny", files)
    call = {"models": [model(files)], "source": f"file://{tmp_path}/source"}
    promised = run(tmp_path, "--check", "--diff", **call)
    assert promised["changed"] is True
    assert promised["diff"]["after"] == f"tiny {REVISIONS[0][:12]}: published\n"
    assert not (tmp_path / "models").exists()
    result = run(tmp_path, **call)
    assert (result["changed"], result["bytes"], result["models"][0]["state"]) == (True, 2, "published")
    assert json.loads((tmp_path / "progress.json").read_text())["finished"] is True
    assert run(tmp_path, **call)["changed"] is False

    published = tmp_path / "models/tiny" / REVISIONS[0][:12] / "config.json"
    published.chmod(0o644)
    published.write_bytes(b"[]")
    result = run(tmp_path, models=call["models"], state="verified", deep=True)
    assert result["failed"] is True
    assert f"{published}: expected sha256 {model(files)['files'][0]['sha256']}, found sha256" in result["msg"]
    result = run(tmp_path, models=call["models"], state="verified", strict=False)
    assert (result.get("failed", False), result["ok"]) == (False, False)
    assert result["models"][0]["faults"][0]["path"] == "config.json"
    result = run(tmp_path, models=[{"name": "tiny"}], state="absent")
    assert result["changed"] is True
    assert not (tmp_path / "models/tiny").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": [{"name": "tiny", "revision": "main"}], "source": "file:///x"}, "has no manifest"),
        ({"models": [model({"a": b"1"})], "source": "scp://x"}, "weights_source is 'scp://x'; write file:///folder"),
    ],
)
def test_module_refuses_with_the_reason(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    result = run(tmp_path, **arguments)
    assert result["failed"] is True
    assert said in result["msg"]
    assert not (tmp_path / "models").exists()


def test_module_asks_sources_in_order_and_shows_no_token(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.dat": payload(100_000, 3)}
    wanted = {**model(files), "repo": "org/tiny"}
    prefix = f"/org/tiny/resolve/{REVISIONS[0]}"
    write_tree(tmp_path / "medium/tiny", {"config.json": b"{}"})
    with serving({f"{prefix}/{path}": data for path, data in files.items()}) as hub:
        sources = [
            {"url": f"file://{tmp_path}/medium"},
            {"url": hub.base, "kind": "hub", "token": "hf_very_secret"},
        ]
        result = run(tmp_path, models=[wanted], sources=sources)
        assert result["changed"] is True
        assert result["models"][0]["fetched"] == ["config.json", "model.dat"]
        assert [asked.path for asked in hub.asked] == [f"{prefix}/model.dat"]
        assert hub.asked[0].headers["Authorization"] == "Bearer hf_very_secret"
    result = run(tmp_path, models=[{**wanted, "revision": REVISIONS[1]}], sources=sources, retries=1)
    assert result["changed"] is True  # every blob is here
    assert "hf_very_secret" not in json.dumps(result)


def test_module_names_every_source_that_failed(tmp_path: Path) -> None:
    write_tree(tmp_path / "medium/tiny", {"config.json": b"[]"})
    with serving({}) as server:
        sources = [{"url": f"file://{tmp_path}/medium"}, {"url": server.base}]
        result = run(tmp_path, models=[model({"config.json": b"{}"})], sources=sources)
    assert result["failed"] is True
    assert f"{tmp_path}/medium/tiny/config.json: expected sha256" in result["msg"]
    assert f"; then {server.base}/tiny/config.json: the server answers 404" in result["msg"]
