"""The question through the gateway: a real TLS server on loopback, streamed answers and refusals."""

from __future__ import annotations

import json
import shlex
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from cli.ask import AskError, Gateway, ask, pieces, question
from cli.demo import Phases, curl_command, make_key
from cli.progress import amounts

NAME = "redoubt.test"
GAP = 0.2


def chunk(text: str | None) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text} if text else {}}]})}\n\n".encode()


class Stub(BaseHTTPRequestHandler):
    """Stands in for gateway and model: answers a key with a stream, everything else with 401."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer sk-right" or self.headers["Host"] != f"{NAME}:{self.port}":
            text = b'{"error": "no key"}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        stream = [chunk(None), chunk("The capital is "), chunk("Paris."), b"data: [DONE]\n\n"]
        for part in stream[:-1] if body["model"] == "broken" else stream:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(GAP)
        self.wfile.write(b"0\r\n\r\n")

    @property
    def port(self) -> int:
        assert isinstance(self.server, ThreadingHTTPServer)
        return self.server.server_port

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    (folder / "key").write_text("sk-right\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Gateway(NAME, "127.0.0.1", folder / "ca.crt", folder / "key", server.server_address[1])
    server.shutdown()
    thread.join()


def test_the_answer_is_streamed(gateway: Gateway) -> None:
    moments: list[float] = []
    answer = ask(gateway, question("m", "capital?"), lambda _: moments.append(time.monotonic()))
    assert (answer.text, answer.chunks) == ("The capital is Paris.", 2)
    assert moments[1] - moments[0] > GAP / 2, "each piece is handed on when it comes"
    assert answer.first < answer.seconds


def test_a_wrong_key_is_told(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-wrong")
    wrong = Gateway(NAME, gateway.address, gateway.ca_file, tmp_path / "key", gateway.port)
    with pytest.raises(AskError, match=r"answered 401.*no key") as caught:
        ask(wrong, question("m", "capital?"), lambda _: None)
    assert "sk-wrong" not in str(caught.value)


def test_another_name_or_another_ca_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    other = Gateway("other.test", gateway.address, gateway.ca_file, gateway.key_file, gateway.port)
    with pytest.raises(AskError, match=r"TLS to other\.test"):
        ask(other, question("m", "capital?"), lambda _: None)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    stranger = Gateway(NAME, gateway.address, tmp_path / "ca.crt", gateway.key_file, gateway.port)
    with pytest.raises(AskError, match="failed with the CA"):
        ask(stranger, question("m", "capital?"), lambda _: None)


def test_a_stream_that_breaks_off_is_no_answer(gateway: Gateway) -> None:
    with pytest.raises(AskError, match="broke off"):
        ask(gateway, question("broken", "capital?"), lambda _: None)


def test_nobody_there(gateway: Gateway) -> None:
    nobody = Gateway(NAME, "127.0.0.1", gateway.ca_file, gateway.key_file, 1)
    with pytest.raises(AskError, match=r"no answer from redoubt.test \(127.0.0.1:1\)"):
        ask(nobody, question("m", "capital?"), lambda _: None)


def test_pieces() -> None:
    lines = [b": comment\n", b"\n", chunk(None), chunk("a"), chunk("b"), b"data: [DONE]\n", chunk("after")]
    assert list(pieces(lines)) == ["a", "b"]
    with pytest.raises(AskError, match="error in its stream: out of memory"):
        list(pieces([b'data: {"error": "out of memory"}\n']))
    with pytest.raises(AskError, match="no JSON"):
        list(pieces([b"data: <html>\n"]))


def test_the_demo_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "demo.key"
    make_key(path)
    key = path.read_text().strip()
    assert key.startswith("sk-")
    assert len(key) == 51
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    make_key(path)
    assert path.read_text().strip() == key


def test_the_curl_command_holds_no_key(tmp_path: Path) -> None:
    header = tmp_path / "auth-header"
    words = shlex.split(curl_command(Gateway(NAME, "10.9.8.7", tmp_path / "ca.crt", tmp_path / "key"), header))
    assert words[:6] == ["curl", "-sS", "--resolve", f"{NAME}:443:10.9.8.7", "--cacert", str(tmp_path / "ca.crt")]
    assert f"@{header}" in words
    assert json.loads(words[words.index("-d") + 1])["temperature"] == 0
    assert not any(word.startswith(("sk-", "Authorization")) for word in words)


def test_phases_are_measured_also_when_they_fail() -> None:
    phases = Phases()
    with phases.measure("good"):
        pass
    with pytest.raises(ZeroDivisionError), phases.measure("bad"):
        1 / 0  # noqa: B018  # the fault
    assert [(name, ok) for name, _, ok in phases.rows] == [("good", True), ("bad", False)]
    assert phases.table().row_count == 3


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((120e6, 400e6, "bytes", 40e6), "120.0 of 400.0 MB, 40.0 MB/s, 7 s left"),
        ((3, 7, "files", None), "3 of 7 files"),
        ((5e6, None, "bytes", None), "5.0 MB"),
        ((0, None, "", None), ""),
    ],
)
def test_amounts(given: tuple[float, float | None, str, float | None], text: str) -> None:
    assert amounts(*given) == text
