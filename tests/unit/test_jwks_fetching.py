"""Keys of issuers over real TLS: what is good is kept, and nothing else ever takes its place."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from module_utils.jwks import fetching
from module_utils.jwks.checks import JWKS_KINDS
from module_utils.jwks.keys import LARGEST
from tests.support.jwt_issuer import Issuer
from tests.support.ports import free_port

IDP = Issuer("idp")
GOOD = json.dumps(IDP.jwks()).encode()


@dataclass
class Site:
    """A server of keys, and what it answers."""

    port: int
    folder: Path
    answer: tuple[int, dict[str, str], bytes] = (200, {}, GOOD)
    paths: list[str] = field(default_factory=list)
    host: str = "localhost"
    ca: str = "ca.pem"

    def source(self, **changes: Any) -> dict[str, Any]:
        url = f"https://{self.host}:{self.port}/keys?v=1"
        given = {"name": "idp", "url": url, "algorithms": ["ES256"], "ca": str(self.folder / self.ca)}
        return {**given, **changes}

    def run(self, now: float, **changes: Any) -> dict[str, Any]:
        return fetching.renew([self.source(**changes)], self.folder, now)["idp"]

    def held(self) -> list[str]:
        return [key["kid"] for row in json.loads((self.folder / fetching.KEYS).read_text()) for key in row["keys"]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    made = Site(free_port(), tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

        def do_GET(self) -> None:
            made.paths.append(self.path)
            status, headers, body = made.answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", made.port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def test_keys_of_the_wanted_algorithms_are_kept(site: Site) -> None:
    assert site.run(1000) == {"fetched": 1000, "keys": 1, "problem": ""}
    assert site.held() == ["idp-ES256"]
    assert site.paths == ["/keys?v=1"]
    assert (site.folder / fetching.KEYS).stat().st_mode & 0o777 == 0o644


def test_new_keys_take_the_place_of_old_ones(site: Site) -> None:
    site.run(1000)
    site.answer = (200, {}, json.dumps({"keys": [{**IDP.jwks()["keys"][0], "kid": "new"}]}).encode())
    assert site.run(1600)["fetched"] == 1600
    assert site.held() == ["new"]


BAD: dict[str, tuple[tuple[int, dict[str, str], bytes], str]] = {
    "an error": ((500, {}, GOOD), "answers 500"),
    "a redirect": ((302, {"Location": "/other"}, GOOD), "answers 302"),
    "a permanent redirect": ((308, {"Location": "/other"}, GOOD), "answers 308"),
    "nothing": ((200, {}, b""), "it is no JSON"),
    "a page": ((200, {}, b"<html>"), "it is no JSON"),
    "another document": ((200, {}, b'{"issuer": "x"}'), "it is no JWKS"),
    "no keys": ((200, {}, b'{"keys": []}'), "none of its keys can be used"),
    "too much": ((200, {}, GOOD + b" " * LARGEST), "it is larger than"),
    "half of it": ((200, {"Content-Length": str(len(GOOD))}, GOOD[:-20]), "it is no JSON"),
    "deep nests": ((200, {}, b"[" * 100_000), "it is no JSON"),
    "a shared secret": ((200, {}, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}'), "to the issuer alone"),
    "other algorithms": ((200, {}, json.dumps({"keys": IDP.jwks()["keys"][1:]}).encode()), "none of its keys is for"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_answer_leaves_the_last_good_keys(site: Site, name: str) -> None:
    site.run(1000)
    site.answer, wanted = BAD[name]
    found = site.run(1600)
    assert wanted in found["problem"]
    assert (found["fetched"], found["keys"]) == (1000, 1)
    assert site.held() == ["idp-ES256"]
    assert "/other" not in site.paths
    site.answer = (200, {}, GOOD)
    assert site.run(2200) == {"fetched": 2200, "keys": 1, "problem": ""}


def test_bad_first_answer_gives_no_key(site: Site) -> None:
    site.answer = (200, {}, b"{}")
    assert site.run(1000)["fetched"] == 0
    assert site.held() == []


def test_server_must_be_who_it_says(site: Site) -> None:
    site.run(1000)
    site.ca = "other.pem"
    assert "certificate verify failed" in site.run(1600)["problem"]
    site.ca, site.host = "ca.pem", "127.0.0.1"
    assert "certificate verify failed" in site.run(1600)["problem"]
    assert site.paths == ["/keys?v=1"]


@pytest.mark.parametrize("url", ["http://localhost:{port}/keys", "file:///etc/passwd", "https:///keys"])
def test_only_https_is_asked(site: Site, url: str) -> None:
    assert "is no https address" in site.run(1000, url=url.format(port=site.port))["problem"]
    assert site.paths == []


def test_server_that_never_ends_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PATIENCE", 0.0)
    assert "has not sent all within" in site.run(1000)["problem"]


def test_keys_of_another_address_or_issuer_are_not_kept(site: Site) -> None:
    site.run(1000)
    site.answer = (500, {}, b"")
    assert site.run(1600, url=site.source()["url"] + "&w")["keys"] == 0
    assert site.held() == []


def test_program_tells_doctor_and_figures(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, figures = site.folder / "sources.json", site.folder / "jwks.prom"
    sources.write_text(json.dumps([site.source()]))
    words = [f"--sources={sources}", f"--state-dir={site.folder}", f"--metrics={figures}"]
    check = {"state_dir": str(site.folder), "issuers": ["idp"], "max_minutes": 120}
    assert JWKS_KINDS["jwks"](check)[0] is False
    monkeypatch.setattr("module_utils.jwks.fetching.time.time", lambda: 10_000)
    assert fetching.main(words) == 0
    assert 'redoubt_gateway_jwks_fetched_timestamp_seconds{issuer="idp"} 10000\n' in figures.read_text()
    assert 'redoubt_gateway_jwks_keys{issuer="idp"} 1\n' in figures.read_text()
    assert JWKS_KINDS["jwks"](check) == (True, "keys were had: idp: 0 minutes ago")
    assert JWKS_KINDS["jwks"]({**check, "issuers": ["idp", "b"]}) == (False, "never asked: b")
    site.answer = (503, {}, b"")
    monkeypatch.setattr("module_utils.jwks.fetching.time.time", lambda: 20_000)
    assert fetching.main(words) == 1
    assert "<3>idp: https://localhost" in capsys.readouterr().out
    good, told = JWKS_KINDS["jwks"](check)
    assert (good, "idp: 167 minutes ago" in told, "answers 503" in told) == (False, True, True)


def test_damaged_state_is_made_anew(site: Site) -> None:
    (site.folder / fetching.KEYS).write_text("[{")
    assert site.run(1000)["keys"] == 1
