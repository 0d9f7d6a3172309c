"""A release of the real vLLM: what it is allowed, what it answers, and what happens when the next one is bad.

The tests run in this order; each leaves the release in service that the scenario converged to.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import Play

CONTAINER = "redoubt-smollm2-135m-instruct"
KEY = "k3y-of-the-engine"
CONNECT = "import socket; socket.create_connection((%r, %d), 5); print('open')"


def ask(host: Host) -> dict[str, Any]:
    """One completion on the host's loopback."""
    body = json.dumps({"model": "smollm2-135m-instruct", "prompt": "The capital of France is", "max_tokens": 4})
    words = f"curl -sS -m 60 -H 'Authorization: Bearer {KEY}' -H 'Content-Type: application/json'"
    answer: dict[str, Any] = json.loads(host.check_output(words + " -d %s http://127.0.0.1:8101/v1/completions", body))
    return answer


def inspect(host: Host, name: str = CONTAINER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output("docker container inspect %s", name))[0]
    return found


def lab_address(host: Host) -> str:
    """Where the control host reaches the lab host."""
    return str(host.ansible.get_variables()["ansible_host"])


def current(host: Host) -> str:
    return str(host.check_output("readlink /opt/redoubt/current"))


@pytest.fixture(scope="module")
def good(host: Host) -> str:
    """The link's target after the converge."""
    return current(host)


@pytest.fixture
def listener(host: Host) -> Iterator[tuple[str, int]]:
    """A port on another machine (the control host) that the lab host itself can reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((lab_address(host), 9))  # sends nothing; tells which of our addresses faces the host
        address = probe.getsockname()[0]
    with socket.create_server((address, 0)) as server:
        thread = threading.Thread(target=server.accept, daemon=True)
        thread.start()
        yield address, server.getsockname()[1]


def test_engine_completes_a_prompt(host: Host) -> None:
    answer = ask(host)
    assert "Paris" in answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] >= 1


def test_port_is_on_loopback_only(host: Host) -> None:
    listening = host.check_output("ss -Hltn 'sport = :8101'").split()
    assert listening[3] == "127.0.0.1:8101"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((lab_address(host), 8101), 5)


def test_release_is_closed_and_says_what_it_is(host: Host) -> None:
    assert host.file("/opt/redoubt/current/env").mode == 0o700
    env = host.file(f"/opt/redoubt/current/env/{CONTAINER}.env")
    assert (env.mode, env.user) == (0o600, "root")
    assert KEY in env.content_string
    assert KEY not in host.file("/opt/redoubt/current/compose.yml").content_string
    manifest = json.loads(host.file("/opt/redoubt/current/manifest.json").content_string)
    row = manifest["engines"][0]
    assert row["config_digest"] == inspect(host)["Image"]
    assert len(row["weights_revision"]) == 40
    digest = host.check_output("sha256sum /opt/redoubt/current/compose.yml").split()[0]
    assert manifest["files"]["compose.yml"] == f"sha256:{digest}"


def test_container_has_only_what_it_needs(host: Host) -> None:
    found = inspect(host)
    config = found["HostConfig"]
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["RestartPolicy"]["Name"] == "unless-stopped"
    assert (config["Memory"], config["MemorySwap"]) == (6 * 1024**3, 6 * 1024**3)
    assert config["PidsLimit"] == 8192
    assert config["LogConfig"]["Config"]["max-size"] == "50m"
    assert found["State"]["Health"]["Status"] == "healthy"
    assert found["Config"]["Labels"]["redoubt.release"] == current(host).split("/")[1]
    assert host.run("docker exec %s sh -c 'echo x > /models/smollm2-135m-instruct/x'", CONTAINER).failed
    assert host.run("docker exec %s sh -c 'echo x > /usr/x'", CONTAINER).failed
    environment = host.check_output("docker exec %s env", CONTAINER)
    assert "HF_HUB_OFFLINE=1" in environment
    assert "VLLM_NO_USAGE_STATS=1" in environment


def test_engine_has_no_way_out(host: Host, listener: tuple[str, int]) -> None:
    code = CONNECT % listener
    assert host.check_output("python3 -c %s", code) == "open"
    python = f"docker exec {CONTAINER} python3.11 -c %s"
    assert host.check_output(python, CONNECT % ("127.0.0.1", 8000)) == "open"
    inside = host.run(python, code)
    assert inside.failed
    assert "timed out" in inside.stderr or "unreachable" in inside.stderr
    resolve = "import socket; socket.getaddrinfo('localhost.localdomain.example', 80)"
    assert "Temporary failure in name resolution" in host.run(python, resolve).stderr


def test_secret_is_in_no_world_readable_file_and_no_process_list(host: Host) -> None:
    assert KEY not in host.check_output("ps -eo args")
    found = host.run("find /opt /etc /var/lib/redoubt /var/log /tmp -type f -perm -o=r -exec grep -l %s {} +", KEY)
    assert found.stdout == ""


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"config_digest": "sha256:" + "0" * 64}, "but the lock says sha256:000000"),
        ({"address": "0.0.0.0"}, "'0.0.0.0' is neither loopback nor private"),  # noqa: S104 - it must be refused
        ({"with_second": True, "second_name": "smollm2-135m-instruct"}, "is used by both"),
    ],
)
def test_bad_wish_is_refused_before_anything_changes(
    host: Host, play: Play, variables: dict[str, Any], words: str
) -> None:
    before = inspect(host)["State"]["StartedAt"]
    releases = host.file("/opt/redoubt/releases").listdir()
    run = play(**variables)
    assert run.status != 0
    assert words in run.words
    assert inspect(host)["State"]["StartedAt"] == before
    assert host.file("/opt/redoubt/releases").listdir() == releases


def test_check_mode_shows_the_change_and_makes_none(host: Host, play: Play) -> None:
    before = inspect(host)["State"]["StartedAt"]
    run = play(check=True, arguments=["--max-num-batched-tokens", "1024"])
    assert (run.status, run.changed) == (0, 1)
    assert "--max-num-batched-tokens" in run.text
    assert KEY not in run.text
    assert inspect(host)["State"]["StartedAt"] == before


def test_killed_run_is_made_up_for(host: Host, play: Play, good: str) -> None:
    """SIGKILL while a second engine starts; the wish is withdrawn: the second one goes, the first never stopped."""
    before = inspect(host)["State"]["StartedAt"]
    scenario = os.environ["MOLECULE_SCENARIO_DIRECTORY"]
    inventory = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] + "/inventory"
    command = ["ansible-playbook", "-i", inventory, f"{scenario}/converge.yml", "-e", '{"with_second": true}']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        deadline = time.monotonic() + 60
        while host.run("docker container inspect redoubt-second").failed:
            assert time.monotonic() < deadline
            time.sleep(1)
        host.check_output("kill -KILL $(head -n 1 /opt/redoubt/.lock)")  # the module's process
        started.kill()
    assert current(host) == good
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert host.run("docker container inspect redoubt-second").failed
    assert inspect(host)["State"]["StartedAt"] == before
    assert play().changed == 0


def test_gate_is_red_for_an_engine_that_does_not_serve_its_model(host: Host, play: Play, good: str) -> None:
    before = inspect(host)["State"]["StartedAt"]
    run = play(with_second=True, second_served="another-name")
    assert run.status != 0
    assert "answered 404 to a completion for model 'second'" in run.words
    assert f"Release {good.split('/')[1]} is in service again" in run.words
    assert current(host) == good
    assert host.run("docker container inspect redoubt-second").failed
    assert inspect(host)["State"]["StartedAt"] == before  # only what is new was started and stopped


def test_crash_loop_is_red_soon_and_the_release_before_answers_again(host: Host, play: Play, good: str) -> None:
    run = play(arguments=["--no-such-flag"])
    assert run.status != 0
    assert "crash-loops: it ended 2 times, exit code 2" in run.words
    assert "unrecognized arguments: --no-such-flag" in run.words
    assert f"Release {good.split('/')[1]} is in service again" in run.words
    assert current(host) == good
    assert "Paris" in ask(host)["choices"][0]["text"]
    assert host.file("/opt/redoubt/releases/.failed/manifest.json").exists


def test_container_killed_by_hand_is_repaired(host: Host, play: Play, good: str) -> None:
    host.check_output("docker kill %s", CONTAINER)
    run = play()
    assert (run.status, run.changed) == (0, 1)
    assert "Paris" in ask(host)["choices"][0]["text"]
    assert current(host) == good
    assert play().changed == 0
