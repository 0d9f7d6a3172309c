"""The whole release transaction against the stub docker and a stub engine: red, restored, repaired, killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.release_support import DIGEST, REPO, StubEngine, World, engine, engines_running, load_module

from ansible.module_utils import release_gate, release_spec  # isort: skip - found by release_support
from ansible.module_utils.release_run import Refused  # isort: skip - found by release_support
from ansible.module_utils.release_store import Store  # isort: skip
from ansible.module_utils.run_lock import Busy  # isort: skip

release = load_module("release")


@pytest.fixture
def server() -> Iterator[StubEngine]:
    stub = StubEngine(0, ["tiny"])
    yield stub
    stub.shutdown()
    stub.server_close()


@pytest.fixture
def world(tmp_path: Path, server: StubEngine, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, server.port)
    real = time.sleep
    monkeypatch.setattr("ansible.module_utils.release_gate.time.sleep", lambda seconds: real(seconds / 50))
    for key, value in made.environment().items():
        monkeypatch.setenv(key, value)
    return made


def rows(world: World, *command: str, **more: Any) -> list[dict[str, Any]]:
    return [engine(port=world.port, weights=str(world.weights), command=["/models/tiny", *command], **more)]


def go(world: World, engines: list[dict[str, Any]] | None = None, check: bool = False, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = release.work(world.params(engines, **more), check)
    return result


def test_a_release_is_written_proved_and_current(world: World, server: StubEngine) -> None:
    result = go(world, secret_environment={"tiny": {"VLLM_API_KEY": "k3y"}})
    assert (result["action"], result["number"], result["changed"]) == ("released", 1, True)
    assert result["proofs"][0]["text"] == " Paris."
    assert server.asked[0]["model"] == "tiny"
    assert server.authorizations[0] == "Bearer k3y"
    assert world.current() == "releases/1"
    folder = world.folder / "opt/releases/1"
    assert (folder / "env/redoubt-tiny.env").stat().st_mode & 0o777 == 0o600
    assert (folder / "env").stat().st_mode & 0o777 == 0o700
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["created_from"] == {"play": "test"}
    assert set(manifest["files"]) == {"compose.yml", "env/redoubt-tiny.env"}
    assert manifest["engines"][0]["config_digest"] == DIGEST


def test_the_second_run_changes_nothing_and_starts_nothing(world: World) -> None:
    go(world)
    calls = len(world.get()["calls"])
    result = go(world)
    assert (result["action"], result["changed"]) == ("unchanged", False)
    new = world.get()["calls"][calls:]
    assert not [call for call in new if call.startswith("compose")]
    assert len(new) <= 4


def test_a_crash_loop_is_red_at_once_and_the_release_before_is_back(world: World, server: StubEngine) -> None:
    go(world)
    good = world.get()["containers"]["redoubt-tiny"]["labels"]["redoubt.digest"]
    bad = rows(world, "--no-such-flag")
    digests = release.wanted_release(bad, world.params(bad)["compose"]).digests
    world.set(crash_digests=[digests["redoubt-tiny"].split(":")[1][:16]])
    with pytest.raises(Refused) as caught:
        go(world, bad)
    text = str(caught.value)
    assert (
        "release 2 was refused: redoubt-tiny (model tiny) crash-loops: it ended 2 times, exit code 2, out of memory"
        in text
    )
    assert "Release 1 is in service again" in text
    assert "unrecognized arguments: --no-such-flag" in text
    assert world.current() == "releases/1"
    assert world.get()["containers"]["redoubt-tiny"]["labels"]["redoubt.digest"] == good
    # Release 1, the refused one (the stub engine answers even while its container crashes), release 1 proved again.
    assert len(server.asked) == 3
    assert (world.folder / "opt/releases/.failed/compose.yml").exists()
    world.set(crash_digests=[])
    assert go(world)["action"] == "unchanged"
    assert go(world, bad)["number"] == 3  # a number is never used twice


def test_a_first_release_that_crashes_is_stopped(world: World) -> None:
    world.set(crash=["redoubt-tiny"])
    with pytest.raises(Refused, match="There is no earlier release to go back to; stopped: redoubt-tiny"):
        go(world)
    assert not list(engines_running(world))
    assert world.current() == ""
    world.set(crash=[])
    assert go(world)["action"] == "released"


def test_an_engine_that_does_not_know_the_model_is_red(world: World, server: StubEngine) -> None:
    server.models = ["another"]
    with pytest.raises(Refused, match="answered 404 to a completion for model 'tiny'"):
        go(world)


def test_an_engine_that_says_nothing_is_red(world: World, server: StubEngine) -> None:
    server.text = ""
    with pytest.raises(Refused, match="completed nothing"):
        go(world)


def test_an_engine_that_does_not_get_ready_is_red_after_its_own_time(world: World) -> None:
    slow = rows(world, health={"path": "/nothing-here", "timeout": 1})
    with pytest.raises(Refused, match="was not ready after 1 s"):
        go(world, slow)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"images": {}}, "is not on this host; run the images role"),
        ({"images": {"redoubt.lab/engine:1": "sha256:" + "9" * 64}}, "but the lock says " + DIGEST),
    ],
)
def test_a_wrong_image_is_refused_before_anything_changes(world: World, state: dict[str, Any], words: str) -> None:
    world.set(**state)
    with pytest.raises(Refused, match=words):
        go(world)
    assert not (world.folder / "opt/releases/1").exists()
    assert not world.calls("compose")


def test_missing_weights_are_refused(world: World) -> None:
    (world.weights / "config.json").unlink()
    with pytest.raises(Refused, match="run the weights role"):
        go(world)
    assert not world.calls("compose")


def test_a_compose_file_that_compose_refuses_changes_nothing(world: World) -> None:
    world.set(refuse_config=True)
    with pytest.raises(Refused, match=r"nothing was changed.*additional properties"):
        go(world)
    assert Store(str(world.folder / "opt"), str(world.folder / "var")).numbers() == []
    assert not world.calls(" up ")


def test_a_container_that_is_gone_or_stopped_or_foreign_is_repaired(world: World) -> None:
    go(world)
    for damage, why in (
        (None, "does not exist"),
        ({"status": "exited"}, "is exited"),
        ({"status": "paused"}, "is paused"),
        ({"image": "sha256:" + "9" * 64}, "does not run the image"),
        ({"health": "unhealthy"}, "is unhealthy"),
        ({"labels": {}}, "settings of another release"),
    ):
        containers = world.get()["containers"]
        if damage is None:
            containers = {}
        else:
            containers["redoubt-tiny"].update(damage)
        world.set(containers=containers)
        result = go(world)
        assert (result["action"], result["number"]) == ("repaired", 1), why
        assert why in result["reasons"][0]
        assert go(world)["changed"] is False


def test_a_busy_engine_is_left_alone_and_a_closed_port_is_not(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        busy = release_spec.parse_engines([engine(port=silent.getsockname()[1])])[0]
        assert release_gate.reachable(busy)
    assert not release_gate.reachable(busy)


def test_a_file_changed_by_hand_is_put_back(world: World) -> None:
    go(world)
    file = world.folder / "opt/releases/1/compose.yml"
    before = file.read_text()
    file.write_text(before + "# by hand\n")
    (world.folder / "opt/releases/1/env/redoubt-tiny.env").chmod(0o644)
    result = go(world)
    assert result["action"] == "repaired"
    assert "compose.yml, env/redoubt-tiny.env" in result["reasons"][0]
    assert file.read_text() == before
    assert go(world)["changed"] is False


def test_check_mode_tells_and_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(world.folder / "nothing"))  # an empty host: no docker at all
        result = go(world, check=True)
    assert (result["action"], result["changed"], result["warnings"]) == ("released", True, [])
    assert "redoubt-tiny" in result["diff"][0]["after"]
    assert not (world.folder / "opt").exists()
    go(world)
    assert go(world, check=True)["changed"] is False
    result = go(world, rows(world, "--new"), check=True, secret_environment={"tiny": {"KEY": "s3cret"}})
    assert result["number"] == 2
    assert "--new" in result["diff"][0]["after"]
    assert "--new" not in result["diff"][0]["before"]
    assert "s3cret" not in str(result)
    assert world.current() == "releases/1"


def test_old_releases_go_but_never_the_current_or_the_one_before(world: World) -> None:
    for number in range(1, 6):
        result = go(world, rows(world, f"--n={number}"), keep=2)
    store = Store(str(world.folder / "opt"), str(world.folder / "var"))
    assert store.numbers() == [4, 5]
    assert result["pruned"] == [3]
    go(world, state="rolled_back")
    assert store.current() == 4
    go(world, rows(world, "--n=6"), keep=1)
    assert store.numbers() == [4, 6]


def test_rollback_and_back_again(world: World) -> None:
    go(world)
    go(world, rows(world, "--new"))
    result = go(world, state="rolled_back")
    assert (result["action"], result["number"]) == ("rolled_back", 1)
    assert world.current() == "releases/1"
    assert go(world)["action"] == "unchanged"
    assert go(world, state="rolled_back", number=2)["number"] == 2
    with pytest.raises(Refused, match=r"no proved release 9 here; there are \[1\]"):
        go(world, state="rolled_back", number=9)
    (world.folder / "opt/releases/1/compose.yml").write_text("services: {}\n")
    with pytest.raises(Refused, match="release 1 was changed by hand"):
        go(world, state="rolled_back")


def test_a_second_run_at_the_same_time_is_refused(world: World) -> None:
    go(world)
    store = Store(str(world.folder / "opt"), str(world.folder / "var"))
    caught: list[str] = []

    def other() -> None:
        try:
            go(world, lock_timeout=0)
        except Busy as error:
            caught.append(str(error))

    with store.prepared(0):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"another run (process {os.getpid()} of " in caught[0]


def killed(world: World, at: str, engines: list[dict[str, Any]]) -> None:
    """Run the module's work in a process that gets SIGKILL while it waits for a docker command."""
    world.set(kill_at=at)
    code = (
        "import json, sys; from tests.unit.release_support import load_module;"
        "load_module('release').work(json.load(sys.stdin), False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(world.params(engines)),
        text=True,
        cwd=REPO,
        env=world.environment(),
        check=False,
        timeout=30,
    )
    assert done.returncode == -9


@pytest.mark.parametrize("at", ["image inspect", "config", "up", "container inspect"])
@pytest.mark.parametrize("then", ["again", "undone"])
def test_a_killed_run_is_made_up_for(world: World, at: str, then: str) -> None:
    go(world)
    new = rows(world, "--new")
    killed(world, at, new)
    assert world.current() == "releases/1"
    store = Store(str(world.folder / "opt"), str(world.folder / "var"))
    # The wish stands: it is carried out. The wish is withdrawn: the host is as it was.
    result = go(world, new if then == "again" else None)
    assert result["proofs"] or result["action"] == "unchanged"
    label = world.get()["containers"]["redoubt-tiny"]["labels"]["redoubt.digest"]
    document = store.manifest(store.current())
    assert label == document["engines"][0]["digest"].split(":")[1][:16]
    assert store.numbers() == ([1, store.current()] if then == "again" else [1])
    assert not list((world.folder / "opt/releases").glob(".staged-*"))
    assert go(world, new if then == "again" else None)["changed"] is False


def test_a_run_killed_between_proof_and_link_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go(world)
    new = rows(world, "--new")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ansible.module_utils.release_store.os.symlink", die)
        with pytest.raises(KeyboardInterrupt):
            go(world, new)
    assert world.current() == "releases/1"
    starts = len(world.calls(" up "))
    result = go(world, new)
    assert world.current() == f"releases/{result['number']}"
    assert len(world.calls(" up ")) == starts + 1
    assert go(world, new)["changed"] is False
