"""The model that the role published, and what it does about bad sources, damage and a killed run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play, run_play
from tests.support.weight_trees import REVISIONS

FIRST, SECOND = (f"/srv/redoubt/models/tiny/{revision[:12]}" for revision in REVISIONS)
SHARD = "shards/2.dat"
SHOWN_AFTER = 7  # seconds; a run says how far it is every five
PROGRESS = "/var/lib/redoubt/progress/weights.json"
# Spoils the second byte of a file and puts its time back, as a broken disk does.
FLIP = (
    "touch -r {0} /tmp/time && chmod u+w {0} && printf X | dd of={0} bs=1 seek=1 conv=notrunc status=none && "
    "chmod 0444 {0} && touch -r /tmp/time {0}"
)

# Serves a folder, but stops in the middle of a large file, as a line does that is cut.
STALLING_SERVER = """
import http.server, os, shutil, time
class Handler(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source, outputfile):
        if "2.dat" not in self.path:
            return shutil.copyfileobj(source, outputfile)
        outputfile.write(source.read(20000000))
        outputfile.flush()
        time.sleep(600)
os.chdir("/media/trees/second")
http.server.ThreadingHTTPServer(("127.0.0.1", 8089), Handler).serve_forever()
"""

Model = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What the module did in one case, and the files then visible with their SHA-256."""

    changed: bool
    said: str
    models: list[dict[str, Any]]
    files: dict[str, str]


@pytest.fixture(scope="module")
def trees() -> Path:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "trees"


@pytest.fixture(scope="module")
def listed(trees: Path) -> list[Model]:
    document: list[Model] = json.loads((trees / "list.json").read_text())
    return document


def visible(*models: Model) -> dict[str, str]:
    """Return what is visible when exactly these models are published."""
    return {f"{item['revision'][:12]}/{file['path']}": file["sha256"] for item in models for file in item["files"]}


def changed_first(model: Model, **change: Any) -> Model:
    return {**model, "files": [{**model["files"][0], **change}, *model["files"][1:]]}


def cases(listed: list[Model]) -> Iterator[dict[str, Any]]:
    """Every case that needs no more than one run of the module, in this order."""
    second = listed[1]
    yield {"name": "flipped bit, verified", "before": FLIP.format(f"{FIRST}/{SHARD}"), "state": "verified"}
    yield {"name": "flipped bit, mended"}
    yield {"name": "deep", "state": "verified", "deep": True}
    source = "/media/trees/second/tiny"
    bad: dict[str, Any] = {"models": [second], "source": "file:///media/trees/second"}
    yield {
        "name": "corrupted source",
        "before": f"cp -a {source} /tmp/whole; {FLIP.format(f'{source}/{SHARD}')}",
        **bad,
    }
    yield {"name": "truncated source", "before": f"truncate -s 1000 {source}/{SHARD}", **bad}
    yield {"name": "missing source", "before": f"rm {source}/{SHARD}", **bad}
    yield {"name": "link in source", "before": f"ln -s /etc/passwd {source}/{SHARD}", **bad}
    restore = f"rm -r {source} && cp -a /tmp/whole {source}"
    yield {"name": "no manifest", "before": restore, **bad, "models": [{**second, "files": []}]}
    yield {"name": "way up", **bad, "models": [changed_first(second, path="../../../etc/shadow")]}
    yield {"name": "pickle", **bad, "models": [changed_first(second, path="pytorch_model.bin")]}
    yield {"name": "branch", **bad, "models": [{**second, "revision": "main"}]}
    full = "mkdir -p /mnt/small && mount -t tmpfs -o size=8m tmpfs /mnt/small"
    yield {"name": "disk too small", "before": full, "directory": "/mnt/small/models", **bad}
    yield {"name": "nothing was harmed", "before": "umount /mnt/small"}


@pytest.fixture(scope="module")
def outcomes(listed: list[Model]) -> dict[str, Outcome]:
    document = [{"source": "file:///media/trees/first", "models": [listed[0]], **case} for case in cases(listed)]
    assert run_play("cases.yml", timeout=600, cases=document).status == 0
    written = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "outcomes.json").read_text())
    return {
        name: Outcome(
            item["result"]["changed"],
            item["result"].get("msg", ""),
            item["result"].get("models", []),
            dict(line.split(" ") for line in item["files"]),
        )
        for name, item in written.items()
    }


def test_published_read_only_and_nothing_is_left_over(host: Host) -> None:
    assert host.file(FIRST).mode == 0o555
    assert host.file(f"{FIRST}/{SHARD}").mode == 0o444
    assert host.file(f"{FIRST}/{SHARD}").user == "root"
    assert host.file("/srv/redoubt/models/.incoming").mode == 0o700
    assert host.check_output("ls -A /srv/redoubt/models/.incoming /srv/redoubt/models/.blobs/partial").split() == [
        "/srv/redoubt/models/.blobs/partial:",
        "/srv/redoubt/models/.incoming:",
    ]
    assert json.loads(host.file(PROGRESS).content_string)["finished"] is True


def test_flipped_bit_is_named_and_only_that_file_is_fetched_again(
    outcomes: dict[str, Outcome], listed: list[Model]
) -> None:
    seen = outcomes["flipped bit, verified"]
    assert f"{FIRST}/{SHARD}: expected sha256 " in seen.said
    assert [fault["path"] for fault in seen.models[0]["faults"]] == [SHARD]
    mended = outcomes["flipped bit, mended"]
    assert mended.changed
    assert mended.models[0]["fetched"] == [SHARD]
    assert mended.files == visible(listed[0])
    assert outcomes["deep"].said == ""
    assert outcomes["deep"].models[0]["bytes_hashed"] == sum(file["size"] for file in listed[0]["files"])


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("corrupted source", f"/media/trees/second/tiny/{SHARD}: expected sha256"),
        ("truncated source", f"/media/trees/second/tiny/{SHARD}: expected 25165824 bytes, found 1000"),
        ("missing source", f"/media/trees/second/tiny/{SHARD}: is missing there"),
        ("link in source", f"/media/trees/second/tiny/{SHARD} is a symbolic link"),
        ("no manifest", "model 'tiny': has no manifest"),
        ("way up", "path '../../../etc/shadow' leaves its folder"),
        ("pickle", "pytorch_model.bin is of a pickle format"),
        ("branch", "revision is 'main', not a commit of 40 hex digits"),
        ("disk too small", "/mnt/small/models: needs "),
    ],
)
def test_refusal_names_the_place_and_leaves_all_as_it_was(
    outcomes: dict[str, Outcome], listed: list[Model], case: str, said: str
) -> None:
    assert said in outcomes[case].said
    assert outcomes[case].files == visible(listed[0])


def test_after_all_that_the_model_is_as_it_was(outcomes: dict[str, Outcome]) -> None:
    assert not outcomes["nothing was harmed"].changed
    assert outcomes["nothing was harmed"].said == ""


def test_stalled_run_says_so_and_is_killed_and_the_next_one_takes_over_what_arrived(
    host: Host, play: Play, listed: list[Model], outcomes: dict[str, Outcome]
) -> None:
    assert outcomes
    second = listed[1]
    (shard,) = (file["sha256"] for file in second["files"] if file["path"] == SHARD)
    partial = f"/srv/redoubt/models/.blobs/partial/{shard}"
    host.check_output("systemd-run --unit test-stall python3 -c %s", STALLING_SERVER)
    try:
        with ThreadPoolExecutor() as pool:
            running = pool.submit(play, weights_models=[second], weights_source="http://127.0.0.1:8089")
            for _ in range(240):
                # The journal's first line is about the file, the second about its first piece.
                pieces = host.run("wc -l < %s", f"{partial}.journal").stdout.strip() == "2"
                progress = json.loads(host.file(PROGRESS).content_string)
                if pieces and not progress["finished"] and progress["seconds"] > SHOWN_AFTER:
                    break
                time.sleep(0.5)
            host.check_output("kill -KILL %s", str(progress["pid"]))
            killed = running.result()
    finally:
        host.check_output("systemctl stop test-stall")
    assert killed.status != 0
    assert f"(tiny/{SHARD})" in killed.text
    assert "weights on molecule-weights: " in killed.text
    assert not host.file(SECOND).exists
    inode = host.check_output("stat -c %%i %s", partial)
    assert play(weights_models=[second], weights_source="file:///media/trees/second").status == 0
    assert host.check_output("stat -c %%i %s", f"{SECOND}/{SHARD}") == inode
    assert host.file(FIRST).is_directory  # the previous revision stays


def test_revisions_share_the_bytes_of_what_did_not_change(host: Host) -> None:
    inodes = host.check_output("stat -c %%i %s %s", f"{FIRST}/config.json", f"{SECOND}/config.json").splitlines()
    assert inodes[0] == inodes[1]


def test_files_from_the_control_host(host: Host, play: Play, listed: list[Model], trees: Path) -> None:
    host.check_output("rm -r %s", FIRST)
    source = f"controller://{trees}/first"
    run = play(weights_source=source)
    assert run.status == 0
    sums = host.check_output("cd %s && sha256sum config.json shards/*", FIRST).splitlines()
    assert {line.split()[1]: line.split()[0] for line in sums} == {
        file["path"]: file["sha256"] for file in listed[0]["files"]
    }
    assert play(weights_source=source).changed == 0
