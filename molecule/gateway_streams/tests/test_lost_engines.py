"""An engine is lost within an answer: clients of streams are told so in words, all others by their transport."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.gateway_client import ALICE, CHAT, ask, code, rest, stream_open
from tests.support.programs import client
from tests.support.stub_engines import Engines, events

LOG = "/var/log/nginx/gateway-audit.jsonl"
LOST = {"type": "server_error", "param": None, "code": "engine_lost"}
# What curl exits with when an answer has no proper end.
NO_END = {"--http1.1": 18, "--http2": 92}


def curl(address: str, version: str, **body: Any) -> tuple[int, str]:
    """Exit status and answer of a well-known client, which says how the answer ended."""
    command = [client("curl", "curl"), "-sk", version, "--max-time", "60", "--resolve", f"redoubt.lab:443:{address}"]
    command += ["-H", f"Authorization: Bearer {ALICE}", "-d", json.dumps({"model": "small", **body})]
    done = subprocess.run([*command, f"https://redoubt.lab{CHAT}"], capture_output=True, check=False)
    return done.returncode, done.stdout.decode()  # line ends as they came


def last_line(host: Host) -> dict[str, Any]:
    """The last request in the log."""
    line: dict[str, Any] = json.loads(host.check_output(f"sleep 0.5; tail -n 1 {LOG}"))
    return line


def told(found: list[Any]) -> None:
    """The last event is the error, no other is, and nothing says that all is well."""
    assert "[DONE]" not in found
    error = dict(found[-1]["error"])
    assert "not complete" in error.pop("message")
    assert error == LOST
    assert not any("error" in event for event in found[:-1])


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("version", NO_END)
@pytest.mark.parametrize(("end", "before"), [("close", 3), ("reset", 3), ("half", 3), ("early", 0)])
def test_stream_ends_with_an_error_in_words(
    host: Host, address: str, engines: Engines, end: str, before: int, version: str, asked: bool
) -> None:
    """Whole events only, also where the engine was cut off in the middle of one."""
    status, text = curl(address, version, stream=True, end=end, stream_options={"include_usage": asked})
    assert status == 0
    found = events(text)
    told(found)
    assert len(found) == before + 1
    line = last_line(host)
    assert (line["status"], line["ended"], line["upstream"]) == (200, "cut", "127.0.0.1:8101")


@pytest.mark.parametrize("version", NO_END)
def test_stream_that_is_whole_has_no_error(host: Host, address: str, engines: Engines, version: str) -> None:
    status, text = curl(address, version, stream=True)
    found = events(text)
    assert (status, found[-1], len(found)) == (0, "[DONE]", 4)
    assert not any("error" in event for event in found[:-1])
    assert last_line(host)["ended"] == "whole"


def test_killed_engine_is_told_of(host: Host, address: str, engines: Engines) -> None:
    """The process itself, as a crash or the kernel ends it."""
    held = stream_open(address, ALICE, model="small", end="long", pause=0.05)
    engines.kill(8101)
    body = rest(held)
    assert '"code":"engine_lost"' in body
    assert body.endswith("\r\n0\r\n\r\n")
    assert "[DONE]" not in body
    assert last_line(host)["ended"] == "cut"
    refused = ask(address, CHAT, model="small", stream=True)
    assert (refused["status"], code(refused)) == (502, "engine_unavailable")


@pytest.mark.parametrize("version", NO_END)
def test_other_answers_have_no_clean_end(host: Host, address: str, engines: Engines, version: str) -> None:
    """A document with half its bytes is no document, and says so by HTTP."""
    status, text = curl(address, version, end="close")
    assert (status, len(text)) == (NO_END[version], 500)
    assert last_line(host)["ended"] == "cut"
    assert curl(address, version)[0] == 0
    assert last_line(host)["ended"] == "whole"


def test_event_longer_than_is_held_back_is_ended_first(address: str, engines: Engines) -> None:
    status, text = curl(address, "--http1.1", stream=True, end="half", size=300_000, events=2)
    assert status == 0
    blocks = text.split("\n\n")
    told([json.loads(block.removeprefix("data: ")) for block in (*blocks[:2], blocks[3])])
    assert len(blocks[0]) > 300_000


def test_events_between_other_line_ends_arrive_whole(address: str, engines: Engines) -> None:
    gap = "\r\n\r\n"
    status, text = curl(address, "--http1.1", stream=True, gap=gap)
    assert (status, text.count(gap), text[-16:]) == (0, 4, "data: [DONE]" + gap)
    told(events(curl(address, "--http1.1", stream=True, gap=gap, end="half")[1]))


def test_cut_answers_are_counted(host: Host, address: str, engines: Engines) -> None:
    def counted() -> int:
        host.check_output("systemctl start redoubt-audit-seal.service")
        return int(json.loads(host.file("/var/lib/redoubt/audit/status.json").content_string)["cut"])

    before = counted()
    for end in ("close", "whole", "half"):
        curl(address, "--http1.1", stream=True, end=end)
    threading.Event().wait(0.5)  # the lines are on their way to the log
    assert counted() - before == 2
