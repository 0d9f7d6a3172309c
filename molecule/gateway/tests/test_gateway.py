"""The gateway denies by default: who may come in, to which routes, and what is written down."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from tests.support.plays import Play
from tests.support.raw_http import context, exchange, written

testinfra_hosts = ["ansible://molecule-gateway"]
ALICE = "sk-Alice-0123456789abcdef0123456789abcdef0123456789abcd"
BOB = "sk-Bob-fedcba9876543210fedcba9876543210fedcba98765432"
CHAT = "/v1/chat/completions"
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
STUB = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests/support/stub_engine.py")
Answer = dict[str, Any]
# fmt: off
OTHER_PATHS = [
    "/metrics", "/invocations", "/docs", "/openapi.json", "/redoc", "/health", "/ping", "/version",
    "/load", "/tokenize", "/score", "/v1", "/v1/", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    "/v1/embeddings", "/sleep", "/pause", "/collective_rpc", "/server_info", "/status", "//v1/models",
    "/v1//models", "/v1/models/", "/V1/models", "/v1/Models", "/v1/./models", "/v1/../v1/models",
    "/v1/models/.", "/%76%31/models", "/v1%2fmodels", "/v1/models%00", "/v1/models%20", "/v1/models;x=1",
    "/v1/models?", "/v1/models/../../metrics", "/small", "/small/", "/small/metrics", "/Small/v1/models",
    "/none/v1/models", "/v1/models/small", "/stub_status", "/generation/x",
]
# fmt: on


@pytest.fixture(scope="module")
def address() -> str:
    document = json.loads((FOLDER / "inventory/lab.json").read_text())
    return str(document["all"]["hosts"]["molecule-gateway"]["ansible_host"])


@pytest.fixture(scope="module")
def client() -> Host:
    return testinfra.get_host("ansible://molecule-gateway-client", ansible_inventory=str(FOLDER / "inventory"))


@pytest.fixture
def engine(host: Host) -> Iterator[None]:
    """A stub engine on the first model's port."""
    start = "systemd-run --quiet --collect --unit stub-engine python3 -c %s 8101"
    host.check_output(start, STUB.read_text())
    host.check_output("for i in $(seq 50); do ss -ltn | grep -q :8101 && exit 0; sleep 0.1; done; exit 1")
    yield
    host.check_output("systemctl stop stub-engine")


def ask(address: str, path: str, method: str = "GET", name: str = "redoubt.lab", **more: Any) -> Answer:
    return exchange(address, 443, written(path, method, **more), context(), name)


def error_code(answer: Answer) -> str:
    """The code of an error body in OpenAI's shape."""
    assert answer["headers"]["content-type"] == "application/json"
    error = json.loads(answer["body"])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def ask_from(client: Host, questions: list[Answer]) -> list[Answer]:
    """Ask from the other lab host."""
    done = client.run("printf %%s %s | python3 /usr/local/lib/raw_http.py", json.dumps(questions))
    assert done.rc == 0, done.stderr
    answers: list[Answer] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {ALICE}x"},
        {"Authorization": f"Bearer {ALICE[:-1]}"},
        {"Authorization": f"Bearer {ALICE.lower()}"},
        {"Authorization": f"Bearer {ALICE} "[:-3]},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        {"X-API-Key": f"{ALICE}x"},
        {"Authorization": f"Bearer {ALICE}", "X-API-Key": BOB},
        {"Cookie": f"key={ALICE}"},
    ],
)
def test_no_key_or_a_wrong_one_is_401(address: str, header: dict[str, str]) -> None:
    answer = ask(address, CHAT, "POST", headers=header)
    assert answer["status"] == 401
    assert error_code(answer) == "invalid_api_key"
    assert answer["headers"]["www-authenticate"] == 'Bearer realm="redoubt"'


def test_key_in_the_query_is_no_key(address: str) -> None:
    assert ask(address, f"{CHAT}?api_key={ALICE}", "POST")["status"] == 401


@pytest.mark.parametrize("key", [ALICE, BOB])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", f"/small{CHAT}", f"/large{CHAT}"])
def test_right_key_reaches_for_the_engine(address: str, key: str, path: str) -> None:
    answer = ask(address, path, "POST", key=key, body="{}")
    assert answer["status"] == 502  # there is no engine in this scenario: only the gateway can say so
    assert error_code(answer) == "engine_unavailable"
    assert answer["headers"]["strict-transport-security"] == "max-age=63072000"
    assert "1." not in answer["headers"]["server"]


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (written("/v1/models%00", key=ALICE), 400, "bad_request"),
        # As much as the gateway reads before it refuses: what is still on its way then could take the answer with it.
        ("GET /".ljust(16_384, "a"), 414, "uri_too_long"),
        ("GET /v1/models HTTP/1.1\r\nHost: redoubt.lab\r\n" + "X-Long: ".ljust(16_384, "a"), 431, "headers_too_large"),
        (written("/-/error/431", key=ALICE), 404, "not_found"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(address: str, request_text: str, status: int, code: str) -> None:
    answer = exchange(address, 443, request_text, context(), "redoubt.lab")
    assert (answer["status"], error_code(answer)) == (status, code)


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_every_other_route_is_404_even_with_a_key(address: str, path: str) -> None:
    answer = ask(address, path, key=ALICE)
    assert answer["status"] in (404, 400)
    if answer["status"] == 404:
        assert error_code(answer) == "not_found"
    else:  # Nginx cannot read the path at all
        assert "%00" in path or "/../../" in path


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [(CHAT, "GET", "POST"), (CHAT, "DELETE", "POST"), ("/v1/models", "POST", "GET"), ("/v1/models", "HEAD", "GET")],
)
def test_other_methods_are_405(address: str, path: str, method: str, allow: str) -> None:
    answer = ask(address, path, method, key=ALICE)
    assert answer["status"] == 405
    assert answer["headers"]["allow"] == allow
    if method != "HEAD":
        assert error_code(answer) == "method_not_allowed"


def test_too_large_a_body_is_413(address: str) -> None:
    request = written(CHAT, "POST", key=ALICE).replace("Content-Length: 0", "Content-Length: 99999999")
    answer = exchange(address, 443, request, context(), "redoubt.lab")
    assert answer["status"] == 413
    assert error_code(answer) == "request_too_large"


def test_address_outside_the_allowlist_is_403_whatever_it_says(address: str, client: Host) -> None:
    forged: list[dict[str, str]] = [
        {},
        *({name: "127.0.0.1"} for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP")),
        {"X-Forwarded-For": "127.0.0.1, 127.0.0.1", "Forwarded": "for=127.0.0.1"},
    ]
    requests = [written(CHAT, "POST", key=key, headers=head) for head in forged for key in (None, ALICE)]
    requests += [written(path, key=ALICE) for path in ("/v1/models", "/healthz", "/nothing", "/")]
    about = {"address": address, "port": 443, "server_name": "redoubt.lab"}
    answers = ask_from(client, [{**about, "request": request} for request in requests])
    assert [answer.get("status") for answer in answers] == [403] * len(requests)
    assert {error_code(answer) for answer in answers} == {"address_not_allowed"}


def test_second_host_reaches_no_other_port(address: str, client: Host, engine: None) -> None:
    about = {"address": address, "server_name": None, "request": written("/status")}
    answers = ask_from(client, [{**about, "port": port} for port in (80, 8008, 8101)])
    assert answers[0]["status"] == 403
    assert all("refused" in answer["error"] for answer in answers[1:])


def test_health_is_open_to_the_allowed_and_to_the_host_itself(host: Host, address: str) -> None:
    answer = ask(address, "/healthz")
    assert (answer["status"], answer["body"]) == (200, '{"status":"ok"}')
    # No key in these: sudo writes the commands to the journal, where another test looks for keys.
    # From the host's own address, which the allowlist does not hold, only this path is open.
    program = STUB.with_name("raw_http.py").read_text()
    about = {"address": address, "port": 443, "server_name": "redoubt.lab"}
    questions = [{**about, "request": written(path)} for path in ("/healthz", "/v1/models")]
    done = host.run("printf %%s %s | python3 -c %s", json.dumps(questions), program)
    assert [item.get("status") for item in json.loads(done.stdout)] == [403, 403]
    here = [{**item, "address": "127.0.0.1"} for item in questions]
    done = host.run("printf %%s %s | python3 -c %s", json.dumps(here), program)
    assert [item.get("status") for item in json.loads(done.stdout)] == [200, 401]


@pytest.mark.parametrize("name", ["other.lab", "x.redoubt.lab", None])
def test_unknown_name_is_rejected_in_the_handshake(address: str, name: str | None) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exchange(address, 443, written("/healthz"), context(), name)


def test_unknown_host_behind_a_known_handshake_gets_no_answer(address: str) -> None:
    for host in ("other.lab", "127.0.0.1", address):
        assert ask(address, "/healthz", host=host)["status"] == 0
    assert ask(address, "/healthz", host="llm.redoubt.lab")["status"] == 200


def test_plain_http_only_leads_to_https_and_only_for_known_names(address: str) -> None:
    answer = exchange(address, 80, written("/v1/models?x=1", key=ALICE))
    assert answer["status"] == 308
    assert answer["headers"]["location"] == "https://redoubt.lab/v1/models?x=1"
    assert exchange(address, 80, written("/v1/models", host="other.lab"))["status"] == 0
    assert exchange(address, 80, written("/v1/models", host=address))["status"] == 0
    assert exchange(address, 80, "GET / HTTP/1.0\r\n\r\n")["status"] == 0


def old_tls_works_here(version: str) -> bool:
    """Whether this machine's client can speak an old version at all: it meets a server of its own that offers it."""
    # The certificate is not looked at; any pair will do.
    import trustme  # noqa: PLC0415 - only this question needs it

    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("redoubt.lab").configure_cert(server_context)
    server_context.set_ciphers("ALL:@SECLEVEL=0")
    server_context.minimum_version = ssl.TLSVersion[version]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with server_context.wrap_socket(plain, server_side=True) as stream:
                stream.recv(1000)
                stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        answer = exchange("127.0.0.1", listener.getsockname()[1], "x\r\n\r\n", context(version, version), "redoubt.lab")
        thread.join(10)
    return bool(answer["status"] == 200)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(address: str, version: str) -> None:
    assert old_tls_works_here(version), "this machine cannot speak it, so the test would prove nothing"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exchange(address, 443, written("/healthz"), context(version, version), "redoubt.lab")


@pytest.mark.parametrize(("version", "spoken"), [("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")])
def test_present_tls_is_spoken(address: str, version: str, spoken: str) -> None:
    answer = exchange(address, 443, written("/healthz"), context(version, version), "redoubt.lab")
    assert (answer["status"], answer["tls"]) == (200, spoken)


def test_certificate_holds_against_the_fetched_ca(address: str) -> None:
    strict = context(ca=str(FOLDER / "ca.crt"))
    for name in ("redoubt.lab", "llm.redoubt.lab"):
        assert exchange(address, 443, written("/healthz", host=name), strict, name)["status"] == 200


def test_engine_gets_the_request_without_the_key_or_forged_headers(address: str, engine: None) -> None:
    extra = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Request-Id": "forged",
        "Cookie": "session=1",
        "X-API-Key": ALICE,
        "Accept": "text/event-stream",
    }
    answer = ask(address, f"{CHAT}?api_key={BOB}", "POST", key=ALICE, body='{"a": 1}', headers=extra)
    assert answer["status"] == 200
    seen = json.loads(answer["body"].split("\r\n")[1].split("\n")[0])
    assert seen["line"] == f"POST {CHAT} HTTP/1.1"
    assert seen["body"] == '{"a": 1}'
    assert seen["headers"] == {
        "host": "redoubt.lab",
        "content-type": "application/json",
        "content-length": "8",
        "accept": "text/event-stream",
        "x-request-id": answer["headers"]["x-request-id"],
        "x-forwarded-for": address.rpartition(".")[0] + ".1",
        "x-forwarded-proto": "https",
    }


def test_stream_arrives_as_it_is_made(address: str, engine: None) -> None:
    answer = ask(address, f"/small{CHAT}", "POST", key=BOB, body="{}")
    assert answer["body"].count("data: ") == 6
    arrivals = answer["arrivals"]
    assert len(arrivals) >= 6
    assert arrivals[-1] - arrivals[0] > 1.2  # five pauses of 0.3 s: nothing was held back to the end


def test_access_log_tells_who_and_what_but_no_secret(host: Host, address: str, engine: None) -> None:
    answer = ask(address, f"{CHAT}?api_key={BOB}", "POST", key=ALICE, body='{"prompt": "a-private-question"}')
    ask(address, f"/v1/models?api_key={BOB}", key="sk-a-wrong-key-that-somebody-tried-0000000000")
    lines = host.file("/var/log/nginx/gateway-audit.jsonl").content_string.splitlines()
    entries = [json.loads(line) for line in lines]
    entry = next(item for item in entries if item["request_id"] == answer["headers"]["x-request-id"])
    assert (entry["client"], entry["model"], entry["path"], entry["status"]) == ("alice", "small", CHAT, 200)
    assert entry["address"].endswith(".1")
    assert 0 <= float(entry["ttft"]) < entry["seconds"]
    assert entry["seconds"] > 1.2
    assert host.file("/var/log/nginx/gateway-audit.jsonl").mode == 0o640
    for secret in (ALICE, BOB, "a-private-question", "somebody-tried", "api_key"):
        # Backwards, because sudo writes this very command to the journal.
        pattern = f'"$(echo {secret[::-1]} | rev)"'
        assert host.run(f"grep -rlF -e {pattern} /var/log /run/log").stdout.split() == []
        assert host.run(f"journalctl --no-pager -o cat | grep -cF -e {pattern}").stdout.strip() == "0"


def test_no_secret_is_readable_or_in_a_process_list(host: Host) -> None:
    keys = host.file("/etc/redoubt/gateway/keys.conf")
    assert (keys.mode, keys.user, keys.group) == (0o600, "root", "root")
    assert sha256(ALICE.encode()).hexdigest() in keys.content_string
    for name in ("ca.key", "server.key"):
        assert (host.file(f"/etc/redoubt/tls/{name}").mode, name) == (0o600, name)
    assert host.file("/etc/redoubt").mode == 0o700
    assert ALICE not in host.check_output("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '")
    # The key lies nowhere, not even where root alone could read it.
    search = "find / -xdev -path /proc -prune -o -type f -size -1M -print0"
    assert host.run(f'{search} | xargs -0 grep -lF "$(echo {ALICE[::-1]} | rev)"').stdout == ""


def test_only_the_gateways_ports_are_open(host: Host) -> None:
    listening = host.check_output("ss -H -ltnp | awk '/nginx/ {print $4}' | sort -u").split()
    ipv6 = ["[::]:443", "[::]:80"] if host.file("/proc/net/if_inet6").content_string else []
    assert listening == ["0.0.0.0:443", "0.0.0.0:80", "127.0.0.1:8008", *ipv6]
    assert not host.file("/etc/nginx/sites-enabled/default").exists
    assert host.service("nginx").is_enabled
    assert "Active connections" in host.check_output(
        "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8008/status\").read().decode())'"
    )


def test_foreign_site_opens_nothing(host: Host, address: str) -> None:
    hole = "server { listen 8099; location / { proxy_pass http://127.0.0.1:8101; } }"
    host.check_output(
        "echo %s > /etc/nginx/conf.d/hole.conf; cp /etc/nginx/conf.d/hole.conf /etc/nginx/sites-enabled/", hole
    )
    host.check_output("systemctl reload nginx")
    assert "8099" not in host.check_output("nginx -T 2>&1")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((address, 8099), 2)


def test_key_added_and_taken_away(address: str, play: Play) -> None:
    carol = "sk-Carol-00112233445566778899aabbccddeeff0011223344556677"
    assert ask(address, "/v1/models", key=carol)["status"] == 401
    run = play(gateway_api_keys=[{"name": "carol", "key": carol}])
    assert (run.status, run.changed) == (0, 1)
    assert carol not in run.text
    assert json.loads(ask(address, "/v1/models", key=carol)["body"])["data"]
    assert ask(address, "/v1/models", key=ALICE)["status"] == 401
    assert play().status == 0
    assert ask(address, "/v1/models", key=ALICE)["status"] == 200
