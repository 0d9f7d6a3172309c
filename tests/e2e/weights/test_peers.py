"""What the usual tools do wrong on one mirror, shown with the tools themselves, and ours doing it right.

Each test first sees the tool fail as it was measured, so that a tool that learns better makes its test red.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.artifacts.manifest import Model, parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.board import Limits
from ansible.module_utils.fetch.web import Hub

from tests.support.peers import HubClient, aria2, curl, get_url, kill_when
from tests.support.static_nginx import StaticNginx, serving, write_hub
from tests.support.weight_trees import model, tensor_file

REPO, COMMIT, NAME = "org/Tiny-1B", "c" * 40, "model.safetensors"
DATA = tensor_file(96 << 20, 1)
PIECE = 16 << 20
CONNECTIONS = 2
RATE = 16 << 20  # bytes per second and connection, so that there is a middle of the way


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticNginx]:
    root = tmp_path_factory.mktemp("mirror")
    write_hub(root, REPO, COMMIT, {NAME: DATA})
    with serving(root, f"limit_rate {RATE};") as made:
        yield made


@pytest.fixture
def url(mirror: StaticNginx) -> str:
    return f"{mirror.base}/{REPO}/resolve/{COMMIT}/{NAME}"


def wanted() -> Model:
    (made,) = parse_models([{**model({NAME: DATA}, revision=COMMIT), "repo": REPO}])
    result: Model = made
    return result


def bring(mirror: StaticNginx, place: Path) -> Outcome:
    settings = Settings(how=How(Limits(connections=CONNECTIONS)))
    _, (outcome,) = present(Store(place / "models", place / "state"), [wanted()], [Hub(mirror.base)], settings)
    result: Outcome = outcome
    return result


def tree(place: Path) -> Path:
    return Path(Store(place / "models", place / "state").published(wanted()))


def sent_while(mirror: StaticNginx, work: Callable[[], object]) -> int:
    before = mirror.total()
    work()
    return mirror.total() - before


def half_way(mirror: StaticNginx, command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    """Start a tool and kill it, and whatever it started, when half of the file is on the disk."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(
        command, env=environment, stdout=quiet, stderr=quiet, stdin=quiet, start_new_session=True
    )
    assert kill_when(started, lambda: on_disk(folder) > len(DATA) // 2)
    settled(mirror)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Let a tool do its work."""
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def settled(mirror: StaticNginx) -> None:
    """Wait until Nginx has noticed, and written down, that its clients are gone."""
    before = -1
    while before != (before := mirror.total()):
        time.sleep(0.3)


def on_disk(folder: Path) -> int:
    """Bytes that files below a folder really have."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512 if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def flip(path: Path) -> None:
    """Turn one bit over, and leave size and times as they were."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.seek(len(DATA) // 2)
        byte = stream.read(1)[0]
        stream.seek(len(DATA) // 2)
        stream.write(bytes([byte ^ 1]))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def ours_killed_half_way(mirror: StaticNginx, place: Path) -> None:
    """Kill ours when half of the pieces have come; a file's bytes are reserved at once, so the disk says nothing."""
    before = mirror.total()
    child = multiprocessing.get_context("fork").Process(target=bring, args=(mirror, place))
    child.start()
    while child.is_alive() and mirror.total() < before + 3 * PIECE:
        time.sleep(0.005)
    assert child.is_alive()
    child.kill()
    child.join()
    settled(mirror)


def test_killed_client_of_the_hub_begins_anew_and_we_go_on(tmp_path: Path, mirror: StaticNginx) -> None:
    client = HubClient(mirror.base, tmp_path / "hf")
    arguments = ("download", REPO, "--revision", COMMIT, "--local-dir", str(tmp_path / "theirs"))
    started = client.start(*arguments)
    assert kill_when(started, lambda: on_disk(tmp_path / "theirs") > len(DATA) // 2)
    settled(mirror)
    again = sent_while(mirror, lambda: client.download(REPO, COMMIT, tmp_path / "theirs"))
    assert (tmp_path / "theirs" / NAME).read_bytes() == DATA
    assert again >= len(DATA)  # nothing of the half that was there is used

    before = mirror.total()
    ours_killed_half_way(mirror, tmp_path / "ours")
    assert not tree(tmp_path / "ours").exists()
    bring(mirror, tmp_path / "ours")
    assert (tree(tmp_path / "ours") / NAME).read_bytes() == DATA
    assert mirror.total() - before <= len(DATA) + CONNECTIONS * PIECE


@pytest.mark.parametrize("tool", [curl, aria2])
def test_killed_tool_leaves_a_part_under_the_final_name_and_we_do_not(
    tmp_path: Path, mirror: StaticNginx, url: str, tool: Callable[..., list[str]]
) -> None:
    (tmp_path / "theirs").mkdir()
    half_way(mirror, tool(url, tmp_path / "theirs" / NAME), tmp_path / "theirs")
    assert (tmp_path / "theirs" / NAME).read_bytes() != DATA
    ours_killed_half_way(mirror, tmp_path / "ours")
    assert not tree(tmp_path / "ours").parent.exists()


def test_killed_get_url_leaves_its_half_for_good_and_we_clear_up(tmp_path: Path, mirror: StaticNginx, url: str) -> None:
    (tmp_path / "theirs").mkdir()
    digest = hashlib.sha256(DATA).hexdigest()
    command, environment = get_url(url, tmp_path / "theirs" / NAME, tmp_path / "temporary", digest)
    half_way(mirror, command, tmp_path / "temporary", environment)
    again = sent_while(mirror, lambda: run(command, environment))
    assert (tmp_path / "theirs" / NAME).read_bytes() == DATA
    assert again == len(DATA)
    assert on_disk(tmp_path / "temporary") > len(DATA) // 2

    ours_killed_half_way(mirror, tmp_path / "ours")
    bring(mirror, tmp_path / "ours")
    assert on_disk(tmp_path / "ours" / "models" / ".blobs" / "partial") == 0
    assert on_disk(tmp_path / "ours" / "models" / ".incoming") == 0


def test_flipped_bit_costs_get_url_and_aria2_the_whole_file_and_us_one_piece(
    tmp_path: Path, mirror: StaticNginx, url: str
) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    target = tmp_path / "theirs" / NAME
    target.parent.mkdir()
    target.write_bytes(DATA)
    command, environment = get_url(url, target, tmp_path / "temporary", digest)
    flip(target)
    assert sent_while(mirror, lambda: run(command, environment)) == len(DATA)
    assert target.read_bytes() == DATA
    flip(target)
    checked = aria2(url, target, f"--checksum=sha-256={digest}", "--continue=true", "--allow-overwrite=true")
    assert sent_while(mirror, lambda: run(checked)) >= len(DATA)
    assert target.read_bytes() == DATA

    bring(mirror, tmp_path / "ours")
    flip(tree(tmp_path / "ours") / NAME)
    assert sent_while(mirror, lambda: bring(mirror, tmp_path / "ours")) == PIECE
    assert (tree(tmp_path / "ours") / NAME).read_bytes() == DATA


def test_flipped_bit_is_not_seen_by_the_hubs_client_and_we_see_it(tmp_path: Path, mirror: StaticNginx) -> None:
    client = HubClient(mirror.base, tmp_path / "hf")
    assert client.download(REPO, COMMIT, tmp_path / "theirs").returncode == 0
    flip(tmp_path / "theirs" / NAME)
    assert sent_while(mirror, lambda: client.download(REPO, COMMIT, tmp_path / "theirs")) < 1 << 20
    assert (tmp_path / "theirs" / NAME).read_bytes() != DATA

    bring(mirror, tmp_path / "ours")
    flip(tree(tmp_path / "ours") / NAME)
    assert bring(mirror, tmp_path / "ours").state == "mended"
    assert (tree(tmp_path / "ours") / NAME).read_bytes() == DATA


def test_two_runs_at_once_fetch_it_once(tmp_path: Path, mirror: StaticNginx) -> None:
    code = (
        "import sys;from pathlib import Path;import tests.conftest;from tests.e2e.weights import test_peers as t;"
        "from tests.support.static_nginx import StaticNginx;place=Path(sys.argv[2]);"
        "_,(o,)=t.present(t.Store(place/'models',place/'state',120),[t.wanted()],[t.Hub(sys.argv[1])],t.Settings());"
        "print(o.state)"
    )
    command = [sys.executable, "-c", code, mirror.base, str(tmp_path)]
    before = mirror.total()
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(run.communicate(timeout=300)[0].strip() for run in runs)
    assert said == ["present", "published"]
    assert mirror.total() - before == len(DATA)
