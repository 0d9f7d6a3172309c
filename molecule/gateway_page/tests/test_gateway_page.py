"""The page for people, looked at with a browser on another lab host."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from tests.support.gateway_client import ALICE
from tests.support.plays import Play
from tests.support.raw_http import context, exchange, written

testinfra_hosts = ["ansible://molecule-gateway-page"]
NAME = "llm.redoubt.lab"
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(scope="module")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return str(document["all"]["hosts"]["molecule-gateway-page"]["ansible_host"])


@pytest.fixture(scope="module")
def seen(address: str) -> dict[str, Any]:
    """What visitors saw."""
    visitor = testinfra.get_host("ansible://molecule-gateway-page-visitor", ansible_inventory=str(FOLDER / "inventory"))
    done = visitor.run(f"python3 /root/page_visitor.py {address} {NAME} {ALICE} /root/axe.min.js /root")
    assert done.rc == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("visit", ["en", "zh", "phone"])
def test_it_is_whole_and_everybody_can_read_it(seen: dict[str, Any], visit: str) -> None:
    page = seen[visit]
    assert page["problems"] == []
    assert page["errors"] == []
    assert page["origins"] == [f"https://{NAME}"]
    assert not page["wide"]
    assert NAME in page["title"]


def test_it_speaks_the_visitors_language(seen: dict[str, Any]) -> None:
    assert "The gateway answers." in seen["en"]["text"]
    assert "模型" not in seen["en"]["text"]
    assert "网关正常。" in seen["zh"]["text"]
    assert "Your key" not in seen["zh"]["text"]
    assert seen["en"]["turned"] == "zh"


def test_it_shows_models_and_examples_for_this_host(seen: dict[str, Any]) -> None:
    lines = seen["en"]["text"].splitlines()
    assert f"small 8192 https://{NAME}/small/v1" in lines
    assert f"large its own default https://{NAME}/large/v1" in lines
    assert "POST /v1/chat/completions" in lines
    assert not any("/-/" in line for line in lines)
    curl, python, javascript = seen["en"]["examples"]
    assert f"https://{NAME}/v1/chat/completions" in curl
    assert f'base_url="https://{NAME}/v1"' in python
    assert f'baseURL: "https://{NAME}/v1"' in javascript


def test_it_shows_what_a_key_may(seen: dict[str, Any]) -> None:
    assert seen["en"]["wrong"].startswith("401: ")
    models, requests, tokens = seen["en"]["may"].splitlines()
    assert models == "Models: large"
    assert requests == "Requests of this minute left: 29 of 30"
    assert tokens == "Tokens of this minute left: no limit of its own"


def ask(address: str, path: str, method: str = "GET") -> dict[str, Any]:
    return exchange(address, 443, written(path, method, NAME), context(), NAME)


def test_nothing_else_is_given_without_a_key(address: str) -> None:
    assert ask(address, "/")["headers"]["content-type"].startswith("text/html")
    assert "BEGIN CERTIFICATE" in ask(address, "/ca.crt")["content"]
    assert "PRIVATE" not in ask(address, "/ca.crt")["content"]
    for path in ("/index.html", "/page.js/", "//page.js", "/page.jsx", "/%70age.js", "/keys.js", "/../keys.conf"):
        assert ask(address, path)["status"] in (400, 404), path
    assert ask(address, "/", "POST")["status"] == 405
    assert ask(address, "/v1/models")["status"] == 401


def test_it_can_be_left_out(host: Host, address: str, play: Play) -> None:
    assert play(gateway_page=False).status == 0
    assert ask(address, "/")["status"] == 404
    assert ask(address, "/ca.crt")["status"] == 404
    assert not host.file("/etc/redoubt/gateway/page.js").exists
    assert play().status == 0
    assert ask(address, "/")["status"] == 200
