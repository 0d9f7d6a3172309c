"""Hosts that bring a model together, over the real Nginx with TLS, and what goes wrong then."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.fanout import serving

from tests.support.fanout_hosts import Hosts, hosts, said
from tests.support.fault_server import Asked, Fault, FaultServer
from tests.support.fault_server import serving as origin_of
from tests.support.image_archives import payload
from tests.support.ports import free_port
from tests.support.weight_trees import digest, model

PIECE = 64 << 10
FILES = {f"part-{number}": payload(6 * PIECE + 100 * number, number) for number in range(9)} | {"config.json": b"{}"}
SIZE = sum(len(data) for data in FILES.values())
PATIENCE = {"look": 0.1, "begin": 10, "silent": 2, "still": 4}


@contextmanager
def lab(count: int, **patience: float) -> Iterator[tuple[Hosts, FaultServer]]:
    """Hosts, and the origin of the model that they need."""
    with origin_of({f"/tiny/{path}": data for path, data in FILES.items()}) as origin:
        more = {"piece": PIECE, "patience": {**PATIENCE, **patience}, "limits": {"first_pause": 0.01, "retries": 3}}
        with hosts(free_port(), count, [model(FILES)], origin.base, **more) as made:
            yield made, origin


def slow(asked: Asked) -> Fault | None:
    """A rule: each answer takes its time, so that a run can be killed within it."""
    time.sleep(0.15)
    return None


def test_each_byte_comes_from_the_origin_once() -> None:
    with lab(3) as (made, origin):
        results = made.all()
        assert [result["states"] for result in results.values()] == [["published"]] * 3
        assert origin.total() == SIZE
        assert sum(result["from_peers"] for result in results.values()) == 2 * SIZE
        assert all(made.published(name) == FILES for name in made.peers)
        words = [json.loads((made.root / name / "run/www/word.json").read_text()) for name in made.peers]
        assert [word["working"] for word in words] == [False] * 3


def test_host_that_has_the_model_is_a_source_when_the_origin_is_gone() -> None:
    with lab(2, begin=1.5) as (made, origin):
        assert said(made.start("h1"))["states"] == ["published"]
        origin.rule = lambda asked: Fault(status=404)
        before = origin.total()
        assert said(made.start("h2"))["from_peers"] == SIZE
        assert made.published("h2") == FILES
        assert origin.total() == before


def test_dead_host_stops_nobody() -> None:
    with lab(3, begin=1) as (made, origin):
        made.servers["h3"].terminate()
        made.servers["h3"].wait()
        runs = {name: made.start(name) for name in ("h1", "h2")}
        assert [said(run)["states"] for run in runs.values()] == [["published"]] * 2
        assert made.published("h1") == made.published("h2") == FILES
        assert origin.total() == SIZE


def test_killed_host_is_made_up_for_and_takes_the_rest_from_the_others() -> None:
    with lab(3, still=600) as (made, origin):
        origin.rule = slow
        runs = {name: made.start(name) for name in made.peers}
        word = made.root / "h2/run/www/word.json"
        while not (word.exists() and json.loads(word.read_text())["doing"]):
            time.sleep(0.02)
        runs["h2"].kill()
        runs["h2"].wait()
        assert [said(runs[name])["states"] for name in ("h1", "h3")] == [["published"]] * 2
        assert made.published("h1") == made.published("h3") == FILES
        before = origin.total()
        assert said(made.start("h2"))["states"] == ["published"]
        assert made.published("h2") == FILES
        assert origin.total() == before


def test_lying_host_is_named_and_its_bytes_come_from_elsewhere() -> None:
    with lab(2, begin=1.5) as (made, origin):
        assert said(made.start("h1"))["states"] == ["published"]
        data = FILES["part-3"]
        blob = made.root / "h1/models/.blobs/sha256" / digest(data)[:2] / digest(data)
        blob.chmod(0o644)
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        before = origin.total()
        result = said(made.start("h2"))
        assert made.published("h2") == FILES
        told = [text for text in result["warnings"] if f"expected sha256 {digest(data)}, found" in text]
        assert len(told) == 1
        assert f"https://127.0.0.2:{made.port}/sha256/" in told[0]
        assert origin.total() - before >= len(data)


def test_origin_that_fails_for_everybody_is_told_and_nothing_is_published() -> None:
    with lab(2) as (made, origin):
        origin.rule = lambda asked: Fault(status=404) if asked.path.endswith("part-1") else None
        results = made.all()
        assert all("part-1: the server answers 404" in result["refused"] for result in results.values())
        assert made.published("h1") == {}
        origin.rule = lambda asked: None
        before = origin.total()
        assert [result["states"] for result in made.all().values()] == [["published"]] * 2
        assert origin.total() - before == len(FILES["part-1"])


def ask(made: Hosts, path: str, certificate: Path | None, method: str = "GET") -> int:
    """The status of a request to h1; 0 when there is none."""
    context = ssl.create_default_context(cafile=str(made.root / "h1/run/peers.pem"))
    if certificate:
        context.load_cert_chain(certificate)
    own = ("127.0.0.3", 0)
    connection = http.client.HTTPSConnection("127.0.0.2", made.port, context=context, timeout=10, source_address=own)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (ssl.SSLError, OSError):
        return 0
    finally:
        connection.close()


def test_strangers_get_nothing_and_peers_only_what_is_proved(tmp_path: Path) -> None:
    with lab(2, begin=1.5) as (made, _):
        assert said(made.start("h1"))["states"] == ["published"]
        blob = digest(FILES["part-0"])
        path, own = f"/sha256/{blob[:2]}/{blob}", made.root / "h2/run/own.pem"
        assert ask(made, path, own) == 200
        serving.make_identity(tmp_path / "stranger", "127.0.0.3")
        assert ask(made, path, None) == 400
        assert ask(made, path, tmp_path / "stranger/own.pem") == 400
        assert ask(made, path, own, "DELETE") == 405
        (made.root / "h1/models/.blobs/partial" / blob).write_bytes(b"unproved")
        for other in (f"/partial/{blob}", "/", "/own.pem", f"/sha256/../partial/{blob}", "/nginx.conf", "/sha256/"):
            assert ask(made, other, own) in (400, 404)


def configuration(**change: Any) -> str:
    values = {"address": "10.0.0.1", "port": 18443, "peers": ["10.0.0.1", "10.0.0.2"], **change}
    text: str = serving.configuration(Path("/run/it"), Path("/srv/.blobs"), **values)
    return text


def test_only_the_addresses_of_the_plan_are_let_in() -> None:
    text = configuration()
    assert "listen 10.0.0.1:18443 ssl;" in text
    assert text.index("allow 10.0.0.1;") < text.index("allow 10.0.0.2;") < text.index("deny all;")
    assert "listen [fd00::1]:18443 ssl;" in configuration(address="fd00::1", peers=["fd00::1"])
    with pytest.raises(ValueError, match="does not appear"):
        configuration(peers=["10.0.0.1; } evil"])


def test_nothing_is_left_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    serving.make_identity(folder, "127.0.0.1")
    assert sorted(item.name for item in folder.iterdir()) == ["certificate.pem", "own.pem", "www"]
    assert (folder / "own.pem").stat().st_mode & 0o777 == 0o600
    shutil.rmtree(folder)
