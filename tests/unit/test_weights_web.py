"""Model files from a real web server on loopback."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.artifacts.errors import Refusal

from tests.support.tiny_model import FILES, Site
from tests.support.weight_trees import model, write_tree


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a file named in `short` is cut in the middle of its body."""

    short: str = ""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        outputfile.write(data[: len(data) // 2] if self.short and self.path.endswith(self.short) else data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web(site: Site) -> Iterator[tuple[str, type[Handler]]]:
    kind = type("KindOfHandler", (Handler,), {})
    serve = functools.partial(kind, directory=str(site.source))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_from_a_web_server(site: Site, web: tuple[str, type[Handler]]) -> None:
    changed, (outcome,) = site.bring(address=web[0])
    assert (changed, outcome.bytes_copied) == (True, 150_002)
    assert site.contents() == FILES


def test_names_are_quoted_in_addresses(site: Site, web: tuple[str, type[Handler]]) -> None:
    odd = {"a b/c#1?x%20.json": b"odd"}
    write_tree(site.source / "tiny", odd)
    site.bring([model(odd)], address=web[0])
    assert site.contents() == odd


def test_web_server_that_lacks_cuts_or_changes_a_file(site: Site, web: tuple[str, type[Handler]]) -> None:
    address, handler = web
    handler.short = "2.dat"
    with pytest.raises(Refusal, match=r"2\.dat: expected 50000 bytes, found 25000"):
        site.bring(address=address)
    handler.short = ""
    write_tree(site.source / "tiny", {"shards/2.dat": b"w" * 50_000})
    with pytest.raises(Refusal, match=r"2\.dat: expected sha256"):
        site.bring(address=address)
    write_tree(site.source / "tiny", {"shards/2.dat": b"w" * 50_001})
    with pytest.raises(Refusal, match="expected 50000 bytes, the server offers 50001"):
        site.bring(address=address)
    (site.source / "tiny/shards/2.dat").unlink()
    with pytest.raises(Refusal, match="the server answers 404"):
        site.bring(address=address)
    assert not site.published.exists()
    write_tree(site.source / "tiny", FILES)
    _, (outcome,) = site.bring(address=address)
    assert outcome.bytes_reused == 100_002  # what came right in the failed runs


def test_web_server_that_is_not_there(site: Site) -> None:
    with pytest.raises(Refusal, match="Connection refused; is the address right"):
        site.bring(address="http://127.0.0.1:9")
