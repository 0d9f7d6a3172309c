"""The images that the role brought, and what it does about wrong ones."""

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

MEDIUM = "file:///media/archives"
WEB = "http://127.0.0.1:8088"
WRONG = "0" * 64
PROGRESS = "/var/lib/redoubt/progress/images.json"
SMALL, LARGE, PACKED = (f"redoubt.test/{name}:1" for name in ("small", "large", "packed"))
# systemd refuses a service that was started too often; tests may.
RESTART = "systemctl reset-failed docker && systemctl restart docker"
FORGET_SMALL = f"docker image rm --force {SMALL}"

Listed = dict[str, Any]

# Serves a folder, a registry's with the type that Docker wants. With a number, it stops after so many bytes of a file,
# as a line does that is cut.
SERVER = """
import http.server, os, shutil, sys, time
class Handler(http.server.SimpleHTTPRequestHandler):
    def guess_type(self, path):
        kind = "vnd.docker.distribution.manifest.v2+json" if "/manifests/" in path else "octet-stream"
        return "application/" + kind
    def copyfile(self, source, outputfile):
        if len(sys.argv) < 4:
            return shutil.copyfileobj(source, outputfile)
        outputfile.write(source.read(int(sys.argv[3])))
        outputfile.flush()
        time.sleep(600)
os.chdir(sys.argv[2])
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Outcome:
    """What the module did in one case."""

    failed: bool
    changed: bool
    said: str
    images: dict[str, str]


@pytest.fixture(scope="module")
def archives() -> Path:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "archives"


@pytest.fixture(scope="module")
def listed(archives: Path) -> Listed:
    document: Listed = json.loads((archives / "list.json").read_text())
    return document


def cases(listed: Listed) -> Iterator[dict[str, Any]]:
    """Every case that needs no more than one run of the module, in this order."""
    small, large = listed["good"]
    packed, cut, pulled = listed["packed"], listed["cut"], listed["pulled"]
    yield {"name": "tag moved", "before": f"docker tag {LARGE} {SMALL}", "images": listed["good"], "check": True}
    yield {"name": "tag moved, put back", "images": listed["good"]}
    yield {
        "name": "wrong config digest",
        "before": FORGET_SMALL,
        "images": [{**small, "config_digest": f"sha256:{WRONG}"}],
    }
    yield {"name": "wrong sha256", "images": [{**small, "archive_sha256": WRONG}]}
    yield {"name": "other name", "images": [{**small, "name": "redoubt.test/other"}]}
    yield {"name": "no archive", "images": [{**small, "archive": "nowhere.tar"}]}
    yield {"name": "tag only", "images": [{**small, "config_digest": None}]}
    yield {"name": "way up", "images": [{**small, "archive": "../small.tar"}]}
    yield {"name": "cut", "images": [cut]}
    yield {"name": "cut, sha256 unknown", "images": [{**cut, "archive_sha256": None}]}
    yield {"name": "more names", "images": [listed["extra"]]}
    wrong_packed = {**packed, "config_digest": f"sha256:{WRONG}"}
    yield {"name": "compressed, wrong", "images": [wrong_packed]}
    yield {
        "name": "compressed, wrong, name taken",
        "before": f"docker tag {LARGE} {PACKED}",
        "images": [wrong_packed],
    }
    yield {"name": "compressed", "images": [packed]}
    yield {"name": "web", "images": [small], "source": WEB}
    yield {"name": "web, gone", "images": [{**cut, "archive": "gone.tar"}], "source": WEB}
    registry = {"source": "registry"}
    yield {"name": "registry, tag only", "images": [{**pulled, "digest": None}], **registry}
    yield {"name": "registry, wrong", "images": [{**pulled, "digest": f"sha256:{WRONG}"}], **registry}
    contrary = {**pulled, "config_digest": f"sha256:{WRONG}"}
    yield {"name": "registry, contradiction", "images": [contrary], **registry}
    yield {"name": "registry", "images": [pulled], **registry}
    yield {"name": "registry, by manifest only", "images": [{**pulled, "config_digest": None}], **registry}
    yield {"name": "verified", "images": [small, large, packed], "state": "verified"}
    yield {"name": "verified, missing", "images": [small, cut], "state": "verified"}
    away = "mv /usr/bin/docker /usr/bin/docker.away"
    yield {"name": "no docker, check", "before": away, "images": listed["good"], "check": True}
    yield {"name": "no docker", "images": listed["good"]}
    stop = "mv /usr/bin/docker.away /usr/bin/docker; systemctl stop docker.socket docker.service"
    yield {"name": "no engine", "before": stop, "images": listed["good"]}
    yield {"name": "all well again", "before": "systemctl start docker.service", "images": [*listed["good"], packed]}


@pytest.fixture(scope="module")
def outcomes(host: Host, listed: Listed) -> dict[str, Outcome]:
    for unit, port, folder in (("web", 8088, "/media/archives"), ("registry", 5000, "/media/archives/registry")):
        host.check_output(f"systemd-run --unit test-{unit} python3 -c %s {port} {folder}", SERVER)
    document = [{"source": MEDIUM, **case} for case in cases(listed)]
    assert run_play("cases.yml", timeout=600, cases=document).status == 0
    host.check_output("systemctl stop test-web test-registry")
    written = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "outcomes.json").read_text())
    return {
        name: Outcome(
            # failed_when hides the failure, the module's message does not
            bool(item["result"].get("msg")),
            item["result"]["changed"],
            item["result"].get("msg", ""),
            dict(line.split(" ") for line in item["images"]),
        )
        for name, item in written.items()
    }


def image_id(host: Host, ref: str) -> str:
    """Return the Id of an image, empty when the engine has none of this name."""
    return str(host.run("docker image inspect --format '{{ .Id }}' %s", ref).stdout.strip())


def test_engine_has_exactly_the_listed_bytes(host: Host, listed: Listed) -> None:
    for item in listed["good"]:
        assert image_id(host, f"{item['name']}:{item['tag']}") == item["config_digest"]


def test_a_watcher_could_see_how_far_it_was(host: Host, listed: Listed) -> None:
    progress = json.loads(host.file(PROGRESS).content_string)
    assert progress["finished"] is True
    assert progress["done_bytes"] == progress["total_bytes"] == sum(item["size"] for item in listed["good"])


def test_tag_moved_by_hand_is_put_back(outcomes: dict[str, Outcome], listed: Listed) -> None:
    small, large = listed["good"]
    checked = outcomes["tag moved"]
    assert (checked.failed, checked.changed, checked.images[SMALL]) == (False, True, large["config_digest"])
    assert outcomes["tag moved, put back"].images[SMALL] == small["config_digest"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("wrong config digest", f"{SMALL}: expected config digest sha256:{WRONG}, found sha256:"),
        ("wrong sha256", f"/media/archives/small.tar: expected sha256 {WRONG}, found"),
        ("other name", f"does not hold redoubt.test/other:1; it holds {SMALL}"),
        ("no archive", "/media/archives/nowhere.tar: is missing there"),
        ("tag only", "image small: has a tag but no digest and no config_digest"),
        ("way up", "archive '../small.tar' leaves"),
        ("cut", "/media/archives/cut.tar: expected sha256"),
        ("cut, sha256 unknown", "docker load fails"),
        ("more names", f"would also bring {SMALL}, which nobody asked for"),
    ],
)
def test_wrong_archive_loads_nothing(outcomes: dict[str, Outcome], case: str, said: str) -> None:
    assert outcomes[case].failed
    assert said in outcomes[case].said
    # Nothing came, not even an image without a name.
    assert SMALL not in outcomes[case].images
    assert set(outcomes[case].images) == {LARGE}


def test_compressed_archive_is_judged_after_loading(outcomes: dict[str, Outcome], listed: Listed) -> None:
    good = listed["packed"]["config_digest"]
    assert f"the engine has {good} under this name" in outcomes["compressed, wrong"].said
    assert PACKED not in outcomes["compressed, wrong"].images
    assert good not in outcomes["compressed, wrong"].images.values()
    taken = outcomes["compressed, wrong, name taken"]
    assert taken.failed
    assert taken.images[PACKED] == listed["good"][1]["config_digest"]
    assert outcomes["compressed"].images[PACKED] == good


def test_archives_from_a_web_server(outcomes: dict[str, Outcome], listed: Listed) -> None:
    assert outcomes["web"].images[SMALL] == listed["good"][0]["config_digest"]
    assert f"{WEB}/gone.tar: the server answers 404" in outcomes["web, gone"].said


def test_registry_is_asked_by_digest(outcomes: dict[str, Outcome], listed: Listed) -> None:
    pulled = listed["pulled"]
    ref = f"{pulled['name']}:{pulled['tag']}"
    assert "is asked by digest only" in outcomes["registry, tag only"].said
    assert outcomes["registry, wrong"].failed
    assert f"expected config digest sha256:{WRONG}" in outcomes["registry, contradiction"].said
    assert ref not in outcomes["registry, contradiction"].images
    assert outcomes["registry"].images[ref] == pulled["config_digest"]
    by_manifest = outcomes["registry, by manifest only"]
    assert (by_manifest.failed, by_manifest.changed) == (False, False)


def test_verified_tells_what_is_wrong_and_changes_nothing(outcomes: dict[str, Outcome]) -> None:
    assert not outcomes["verified"].failed
    assert "redoubt.test/cut:1: expected sha256:" in outcomes["verified, missing"].said
    assert not outcomes["verified, missing"].changed


def test_host_without_an_engine(outcomes: dict[str, Outcome]) -> None:
    assert not outcomes["no docker, check"].failed
    assert outcomes["no docker, check"].changed
    assert "no docker command on this host; run the role docker first" in outcomes["no docker"].said
    assert "is docker.service running?" in outcomes["no engine"].said
    assert not outcomes["all well again"].failed
    assert not outcomes["all well again"].changed


def test_run_killed_in_the_middle_is_made_up_for(host: Host, play: Play, listed: Listed) -> None:
    large = listed["good"][1]
    host.check_output("docker image rm --force %s", LARGE)
    host.check_output("systemd-run --unit test-stall python3 -c %s 8089 /media/archives 9000000", SERVER)
    try:
        with ThreadPoolExecutor() as pool:
            running = pool.submit(play, images_list=[large], images_source="http://127.0.0.1:8089")
            host.check_output("kill -KILL %s", str(pid_of_load(host)))
            assert running.result().status != 0
    finally:
        host.check_output("systemctl stop test-stall")
    assert image_id(host, LARGE) == ""
    assert play().status == 0
    assert image_id(host, LARGE) == large["config_digest"]
    assert host.check_output("ls -A /var/lib/docker/tmp") == ""


def pid_of_load(host: Host) -> int:
    """Wait until the module is in the middle of a load; return its process id."""
    for _ in range(120):
        progress = json.loads(host.file(PROGRESS).content_string)
        if not progress["finished"] and progress["done_bytes"] > 0:
            return int(progress["pid"])
        time.sleep(0.5)
    raise AssertionError("no load began")


def test_archives_from_the_control_host(host: Host, play: Play, listed: Listed, archives: Path) -> None:
    host.check_output("docker image rm --force %s", SMALL)
    source = f"controller://{archives}"
    run = play(images_source=source)
    assert run.status == 0
    assert image_id(host, SMALL) == listed["good"][0]["config_digest"]
    assert "large.tar" not in run.text  # it was there, so it was not sent
    assert not host.file("/var/lib/redoubt/incoming/images").exists


def test_containerd_store_with_ids_of_its_own(host: Host, play: Play, listed: Listed) -> None:
    """Docker 29's default store, which Docker 26 has as a feature."""
    options = json.loads(host.file("/etc/docker/daemon.json").content_string)
    options |= {"features": {"containerd-snapshotter": True}, "storage-driver": "native"}
    host.check_output(
        f"cp /etc/docker/daemon.json /var/tmp && echo %s > /etc/docker/daemon.json && {RESTART}",
        json.dumps(options),
    )
    try:
        assert play().changed == 1
        found = image_id(host, SMALL)
        assert found not in ("", listed["good"][0]["config_digest"])
        assert play().changed == 0
        host.check_output("docker tag %s %s", LARGE, SMALL)
        assert play().changed == 1
        assert image_id(host, SMALL) == found
    finally:
        host.check_output(f"cp /var/tmp/daemon.json /etc/docker/daemon.json && {RESTART}")
